// The moments of a row of at least a few values from one read of it.
#pragma once

#include "cpu/base/moments.h"
#include "cpu/rows/forward.h"

namespace normkernels {

// near: the mean of the first few values of x, about which sums are taken; sums(about): of x - about and its square
template <class T, class F>
NK_INLINE Moments row_moments(const RowsForward<T>& a, const T* x, compute_t<T> near, const F& sums) {
  using C = compute_t<T>;
  if (a.mean) return moments_by(sums, x, near, a.N, a.eps);
  const double squares = sums(C(0)).b, count = static_cast<double>(a.N);
  return squares_fit<T>(squares, a.N, a.eps) ? Moments{count, 0, squares} : wide_moments(x, false, a.N);
}

}  // namespace normkernels
