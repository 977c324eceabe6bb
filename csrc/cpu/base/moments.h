// The moments of a run of elements from one read.
#pragma once

#include "cpu/base/tiles.h"

namespace normkernels {

// From sums(centre), those of x - centre and of its square: about a value near the mean, and taken again about the mean
// if that was too far off.
template <class T, class F>
NK_INLINE Moments moments_by(const F& sums, const T* x, compute_t<T> about, int64_t n, double eps) {
  using C = compute_t<T>;
  const C share = C(1) / static_cast<C>(n);
  Pair<C> s = sums(about);
  if (!(s.a * s.a * share <= kFar<C> * (s.b - s.a * s.a * share))) {
    about += s.a * share;
    s = sums(about);
  }
  const double left = static_cast<double>(s.a) / static_cast<double>(n);
  const double m2 = s.b - s.a * left;
  if (!squares_fit<T>(m2, n, eps)) return wide_moments(x, true, n);
  return {static_cast<double>(n), about + left, m2};
}

}  // namespace normkernels
