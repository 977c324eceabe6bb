// Forward of the filter family: y = gain * r * (x - mean); without CENTER mean is 0.
#pragma once

#include "cuda/filters/filters.cuh"

namespace normkernels::cuda {

// x is in T, or in float beside y in 16 bits
template <typename T, typename X>
struct FiltersForward {
  Filters<acc_t<T>> filters;
  const X* x;
  Parameter gain;  // (M,), of X or float
  T* y;
  acc_t<T>*mean, *statistic;  // (M,); statistic: r, or |x|
  acc_t<T> eps;
};

template <typename T, typename X, bool CENTER, bool PACKED>
__global__ void __launch_bounds__(kFilterThreads) filters_forward_kernel(const FiltersForward<T, X> p) {
  using A = acc_t<T>;
  __shared__ A scratch[2][1][32];
  const Filters<A>& f = p.filters;
  const Place<T, PACKED> place(f);
  Values<X, kPack<T>> x[kFilterChunks];
  place.tile.load(p.x + place.at, x);
  Moments<A> moments, *partial = reinterpret_cast<Moments<A>*>(f.partial);
  if (f.merge) {
    const auto* parts = partial + int64_t(blockIdx.x / f.segments) * f.segments;
    moments = merge_moments<CENTER, kFilterLength<T>, T, kFilterThreads>(parts, f.segments, f.N, scratch);
  } else {
    moments = tile_moments<CENTER>(place.tile, x, scratch);
    if (f.segments > 1) {
      if (threadIdx.x == 0) partial[blockIdx.x] = moments;
      return;
    }
  }
  const A statistic = CENTER ? rsqrt(moments.squares / A(f.N) + p.eps) : sqrt(moments.squares);
  if (place.writes) {
    if constexpr (CENTER) p.mean[place.row] = moments.mean;
    p.statistic[place.row] = statistic;
  }
  const A scale = inverse<CENTER>(statistic) * load_value<T>(p.gain, place.row, 0, 1);
  const auto finish = [&](int c, Values<X, kPack<T>>& chunk) {
    Wide<T> y = widen<T>(chunk);
#pragma unroll
    for (int k = 0; k < kPack<T>; ++k) y.v[k] = (y.v[k] - moments.mean) * scale;
    place.tile.store(p.y + place.at, c, narrow<T>(y));
  };
  for_chunks<PACKED>(finish, x);
}

// ---- host ----

// workspace(n) gives room for n accumulators
template <bool CENTER, typename T, typename X, typename Workspace>
void filters_forward(const FiltersForward<T, X>& p, const Device& device, Workspace workspace) {
  if constexpr (kFast<T>)
    if (p.filters.packed) return launch_filters<T>(filters_forward_kernel<T, X, CENTER, true>, p, 1, device, workspace);
  launch_filters<T>(filters_forward_kernel<T, X, CENTER, false>, p, 1, device, workspace);
}

}  // namespace normkernels::cuda
