// Backward of the filter family: dx = gain * r * (dy - c1 - xhat * c0) with xhat = r * (x - mean); dgain is the sum of
// dy * xhat. With CENTER c0 and c1 are the means of dy * xhat and of dy; without it c0 is the sum, mean and c1 are 0.
#pragma once

#include "cuda/filters/filters.cuh"

namespace normkernels::cuda {

// x is in T, or in float beside dy in 16 bits
template <typename T, typename X>
struct FiltersBackward {
  Filters<acc_t<T>> filters;
  const T* dy;
  const X* x;
  Parameter gain;
  const acc_t<T>*mean, *statistic;
  X* dx;
  void* dgain;
  bool dgain_is_float;
};

// rounded to X, which is T or what values are in
template <typename X, typename T>
__device__ Values<X, kPack<T>> narrow_to(const Wide<T>& values) {
  if constexpr (std::is_same_v<X, T>)
    return narrow<T>(values);
  else
    return values;
}

template <typename T, typename X, bool CENTER, bool PACKED>
__global__ void __launch_bounds__(kFilterThreads) filters_backward_kernel(const FiltersBackward<T, X> p) {
  using A = acc_t<T>;
  constexpr int V = kPack<T>;
  __shared__ A scratch[2][32];
  const Filters<A>& f = p.filters;
  const Place<T, PACKED> place(f);
  Values<X, V> x[kFilterChunks];
  Pack<T> dy[kFilterChunks];
  place.tile.load(p.x + place.at, x);
  place.tile.load(p.dy + place.at, dy);
  const A mean = CENTER ? p.mean[place.row] : A(0), r = inverse<CENTER>(p.statistic[place.row]);
  A sums[2] = {A(0), A(0)};  // of dy * xhat, and of dy
  if (f.merge) {
    const A* parts = f.partial + int64_t(blockIdx.x / f.segments) * f.segments * 2;
    for (int i = threadIdx.x; i < f.segments; i += kFilterThreads) sums[0] += parts[2 * i], sums[1] += parts[2 * i + 1];
  } else {
    const auto add = [&](int, Values<X, V>& x, Pack<T>& dy) {
      const Wide<T> from = widen<T>(x), d = widen<T>(dy);
#pragma unroll
      for (int k = 0; k < V; ++k) sums[0] += d.v[k] * ((from.v[k] - mean) * r), sums[1] += d.v[k];
    };
    for_chunks<PACKED>(add, x, dy);
  }
  row_sum(sums, place.tile.threads, scratch);
  if (f.segments > 1 && !f.merge) {
    if (threadIdx.x == 0)
      f.partial[2 * int64_t(blockIdx.x)] = sums[0], f.partial[2 * int64_t(blockIdx.x) + 1] = sums[1];
    return;
  }
  if (place.writes && p.dgain != nullptr) {
    if (p.dgain_is_float)
      static_cast<float*>(p.dgain)[place.row] = sums[0];
    else
      static_cast<T*>(p.dgain)[place.row] = narrow<T>(sums[0]);
  }
  const A scale = r * load_value<T>(p.gain, place.row, 0, 1);
  const A c0 = CENTER ? sums[0] / A(f.N) : sums[0], c1 = CENTER ? sums[1] / A(f.N) : A(0);
  keep_packed<T>(x);
  keep_packed<T>(dy);
  const auto finish = [&](int c, Values<X, V>& x, Pack<T>& dy) {
    const Wide<T> from = widen<T>(x), d = widen<T>(dy);
    const auto dx = [&](int k) { return scale * (d.v[k] - c1 - (from.v[k] - mean) * r * c0); };
    place.tile.store(p.dx + place.at, c, narrow_to<X, T>(Wide<T>::of(dx)));
  };
  for_chunks<PACKED>(finish, x, dy);
}

// ---- host ----

// workspace(n) gives room for n accumulators
template <bool CENTER, typename T, typename X, typename Workspace>
void filters_backward(const FiltersBackward<T, X>& p, const Device& device, Workspace workspace) {
  if constexpr (kFast<T>)
    if (p.filters.packed)
      return launch_filters<T>(filters_backward_kernel<T, X, CENTER, true>, p, 2, device, workspace);
  launch_filters<T>(filters_backward_kernel<T, X, CENTER, false>, p, 2, device, workspace);
}

}  // namespace normkernels::cuda
