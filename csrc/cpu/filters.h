// The filter family on the CPU: each filter, a row of a contiguous (M, N), is centred or not and scaled.
//
// Both directions are sweeps: y = scale (x - mean) and dx = a dy + b (x - mean) + c, with coefficients of a whole row.
#pragma once

#include <cmath>

#include "channel_sums.h"
#include "channel_tiles.h"
#include "sweep.h"

namespace normkernels {

// x in T; y and dy in D, the same or 16 bits beside float.
template <class T, class D>
struct FiltersForward {
  using C = compute_t<T>;
  int64_t M, N;
  const T* x;
  const C* gain;  // or null
  D* y;           // may be x
  C* mean;        // null: weight norm
  C* statistic;   // the norm, or rstd with a mean; or null
  double eps;
  bool stream = std::is_same_v<T, D> && sizeof(T) >= 4 && large<T>(M * N) && static_cast<const void*>(x) != y;

  int64_t group() const { return 1; }
  void prefetch(int64_t m, int64_t j, int64_t n) const { prefetch_tile(x + m * N + j, n); }

  Moments measure(int64_t m, int64_t j, int64_t n) const {
    return mean ? centred_moments(x + m * N + j, n) : uncentred_moments(x + m * N + j, n);
  }

  Scale<Same<C>> finish(int64_t m, const Moments& total) const {
    const double root = std::sqrt(mean ? total.m2 / static_cast<double>(N) + eps : total.m2);
    const double inverse = mean || root > 0 ? 1 / root : 0;  // a filter of zeros has no direction
    if (mean) mean[m] = static_cast<C>(total.mean);
    if (statistic) statistic[m] = static_cast<C>(mean ? inverse : root);
    return {{mean ? mean[m] : C(0)}, {static_cast<C>(gain ? inverse * gain[m] : inverse)}, {C(0)}};
  }

  void write(int64_t m, int64_t j, int64_t n, const Scale<Same<C>>& k) const {
    const T *const from = x + m * N + j, *const skip = nullptr;
    if constexpr (std::is_same_v<T, D>)
      if (stream) return scale_past(from, skip, k, y + m * N + j, n);
    scale_tile(from, skip, k, y + m * N + j, n);
  }
};

// The sums of dy and dy (x - mean)
inline void merge(Pair<double>& a, const Pair<double>& part) {
  a.a += part.a;
  a.b += part.b;
}

template <class T, class D>
struct FiltersBackward {
  using C = compute_t<T>;
  int64_t M, N;
  const D* dy;
  const T* x;
  const C *gain, *mean, *statistic;  // as forward found them
  T* dx;
  C* dgain;  // or null
  bool stream = sizeof(T) >= 4 && large<T>(M * N);

  int64_t group() const { return 1; }
  void prefetch(int64_t m, int64_t j, int64_t n) const {
    prefetch_tile(x + m * N + j, n);
    prefetch_tile(dy + m * N + j, n);
  }

  Pair<double> measure(int64_t m, int64_t j, int64_t n) const {
    const Pair<C> sums = sums_about(dy + m * N + j, x + m * N + j, mean ? mean[m] : C(0), n);
    return {sums.a, sums.b};
  }

  Blend<Same<C>> finish(int64_t m, const Pair<double>& total) const {
    const double r = mean ? statistic[m] : statistic[m] > 0 ? 1.0 / statistic[m] : 0;
    const double along = total.b * r, scale = gain ? r * gain[m] : r;
    if (dgain) dgain[m] = static_cast<C>(along);
    if (!mean) return {{C(0)}, {static_cast<C>(scale)}, {static_cast<C>(-scale * r * along)}, {C(0)}};
    if (N == 1) return {};  // one value is its own mean, exactly
    const double count = static_cast<double>(N);
    return {{mean[m]},
            {static_cast<C>(scale)},
            {static_cast<C>(-scale * r * along / count)},
            {static_cast<C>(-scale * total.a / count)}};
  }

  void write(int64_t m, int64_t j, int64_t n, const Blend<Same<C>>& k) const {
    const int64_t at = m * N + j;
    stream ? blend_past(dy + at, x + at, k, dx + at, n) : blend_tile(dy + at, x + at, k, dx + at, n);
  }
};

}  // namespace normkernels
