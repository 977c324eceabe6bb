// Forward over dim 1 of (B, N, S): y = act((s - mean) * rstd * (w + offset) + b), s = x + residual.
#pragma once

#include "cuda/strided_rows/strip.cuh"

namespace normkernels::cuda {

template <typename T>
struct StridedRowsForward {
  const T *x, *residual;  // (B, N, S)
  Affine<T> affine;
  T *y, *summed;         // (B, N, S)
  acc_t<T>*mean, *rstd;  // (B, S)
  acc_t<T> eps;
  int64_t B, N, S;
  bool packed;  // every pointer and S is a whole number of packs
};

// s of one unit, rounded to T and kept in `summed` where there is a residual
template <typename T, bool PACKED>
__device__ Pack<T> load_summed(const StridedRowsForward<T>& p, const Strip<T, PACKED>& strip, int64_t n) {
  const int64_t at = strip.at(n, p.N, p.S);
  const Pack<T> pack = strip.tile.load(p.x + at, 0);
  if (p.residual == nullptr) return pack;
  const Wide<T> x = widen<T>(pack), skip = widen<T>(strip.tile.load(p.residual + at, 0));
  const Pack<T> s = narrow<T>(Wide<T>::of([&](int k) { return x.v[k] + skip.v[k]; }));
  strip.tile.store(p.summed + at, 0, s);
  return s;
}

template <typename T, bool PACKED, bool ACTIVATED>
__global__ void __launch_bounds__(kStripThreads* kUnitThreads)
    strided_rows_forward_kernel(const StridedRowsForward<T> p) {
  using A = acc_t<T>;
  constexpr int V = kPack<T>;
  __shared__ Wide<T> scratch[2][kStripWarps][kStripThreads];
  const Strip<T, PACKED> strip(blockIdx.x, p.S);

  // Welford over this thread's units, then a merge over threads in two passes
  Wide<T> mean{}, squares{};
  A count = 0;
#pragma unroll PACKED ? kUnroll : 1
  for (int64_t n = threadIdx.y; n < p.N; n += kUnitThreads) {
    const Wide<T> s = widen<T>(load_summed(p, strip, n));
    count += A(1);
    const A share = reciprocal(count);
#pragma unroll
    for (int k = 0; k < V; ++k) {
      const A delta = s.v[k] - mean.v[k];
      mean.v[k] += delta * share;
      squares.v[k] += delta * (s.v[k] - mean.v[k]);
    }
  }
  Wide<T> all = Wide<T>::of([&](int k) { return mean.v[k] * (count / A(p.N)); });
  sum_units<T>(all, scratch[0]);
  Wide<T> rstd =
      Wide<T>::of([&](int k) { return squares.v[k] + count * (mean.v[k] - all.v[k]) * (mean.v[k] - all.v[k]); });
  sum_units<T>(rstd, scratch[1]);
#pragma unroll
  for (int k = 0; k < V; ++k) rstd.v[k] = rsqrt(rstd.v[k] / A(p.N) + p.eps);
  if (threadIdx.y == 0) {
    strip.tile.store(p.mean + strip.at(0, 1, p.S), 0, all);
    strip.tile.store(p.rstd + strip.at(0, 1, p.S), 0, rstd);
  }

  const T* source = p.residual != nullptr ? p.summed : p.x;
#pragma unroll ACTIVATED ? 1 : kUnroll
  for (int64_t n = threadIdx.y; n < p.N; n += kUnitThreads) {
    Wide<T> u = widen<T>(strip.tile.load(source + strip.at(n, p.N, p.S), 0));
    const A w = load_value<T>(p.affine.weight, n, p.affine.offset, 1), b = load_value<T>(p.affine.bias, n, 0, 0);
#pragma unroll
    for (int k = 0; k < V; ++k) u.v[k] = (u.v[k] - all.v[k]) * rstd.v[k] * w + b;
    if constexpr (ACTIVATED) activate(u.v, p.affine.activation, p.affine.slope);
    strip.tile.store(p.y + strip.at(n, p.N, p.S), 0, narrow<T>(u));
  }
}

template <typename T>
void strided_rows_forward(const StridedRowsForward<T>& p, const Device& device) {
  const auto run = [&](auto kernel) {
    launch(kernel, dim3(p.B * Strip<T, true>::steps(p.S)), dim3(kStripThreads, kUnitThreads), device, p);
  };
  if constexpr (kFast<T>) {
    const bool identity = p.affine.activation == Activation::kIdentity;
    if (p.packed)
      return identity ? run(strided_rows_forward_kernel<T, true, false>)
                      : run(strided_rows_forward_kernel<T, true, true>);
  }
  run(strided_rows_forward_kernel<T, false, true>);
}

}  // namespace normkernels::cuda
