// Backward over dim 1 of (B, N, S): dx = rstd * (g - mean(g) - xhat * mean(g * xhat)) + dsummed, g = du * (w + offset).
#pragma once

#include "cuda/strided_rows/strip.cuh"

namespace normkernels::cuda {

template <typename T>
struct StridedRowsBackward {
  const T *dy, *dsummed, *x;  // (B, N, S)
  Affine<T> affine;
  const acc_t<T>*mean, *rstd;  // (B, S)
  T* dx;                       // (B, N, S)
  int64_t B, N, S;
  bool packed;        // every pointer and S is a whole number of packs
  acc_t<T>* partial;  // (2, P, N) sums of du * xhat and of du by block; null: not wanted
  int64_t P;
};

// xhat, du and w + offset of one unit
template <typename T>
struct Unit {
  Wide<T> xhat, du;
  acc_t<T> w;
};

template <bool ACTIVATED, typename T, bool PACKED>
__device__ Unit<T> load_unit(const StridedRowsBackward<T>& p, const Strip<T, PACKED>& strip, int64_t n,
                             const Wide<T>& mean, const Wide<T>& rstd) {
  constexpr int V = kPack<T>;
  const int64_t at = strip.at(n, p.N, p.S);
  Unit<T> unit{widen<T>(strip.tile.load(p.x + at, 0)), widen<T>(strip.tile.load(p.dy + at, 0)),
               load_value<T>(p.affine.weight, n, p.affine.offset, 1)};
#pragma unroll
  for (int k = 0; k < V; ++k) unit.xhat.v[k] = (unit.xhat.v[k] - mean.v[k]) * rstd.v[k];
  if constexpr (ACTIVATED) {
    const acc_t<T> b = load_value<T>(p.affine.bias, n, 0, 0);
    Wide<T> u = Wide<T>::of([&](int k) { return unit.xhat.v[k] * unit.w + b; });
    differentiate(u.v, p.affine.activation, p.affine.slope);
#pragma unroll
    for (int k = 0; k < V; ++k) unit.du.v[k] *= u.v[k];
  }
  return unit;
}

// this block's sums over rows of du * xhat and du, in its lines of the workspace; one lane owns a unit
template <typename T>
__device__ void add_sums(const StridedRowsBackward<T>& p, const Unit<T>& unit, int64_t n, bool live, bool first_step) {
  const auto dw = sum_strip<T>(Wide<T>::of([&](int k) { return unit.du.v[k] * unit.xhat.v[k]; }));
  const auto db = sum_strip<T>(unit.du);
  if (threadIdx.x != 0 || !live) return;
  auto *dw_out = p.partial + blockIdx.x * p.N + n, *db_out = dw_out + p.P * p.N;
  *dw_out = first_step ? dw : *dw_out + dw;
  *db_out = first_step ? db : *db_out + db;
}

template <typename T, bool PACKED, bool ACTIVATED>
__global__ void __launch_bounds__(kStripThreads* kUnitThreads, kFewBlocks<sizeof(T) == 4 && ACTIVATED, 3>)
    strided_rows_backward_kernel(const StridedRowsBackward<T> p) {
  using A = acc_t<T>;
  constexpr int V = kPack<T>;
  __shared__ Wide<T> scratch[2][kStripWarps][kStripThreads];
  for (int64_t step = blockIdx.x; step < p.B * Strip<T, PACKED>::steps(p.S); step += gridDim.x) {
    const Strip<T, PACKED> strip(step, p.S);
    const Wide<T> mean = strip.tile.load(p.mean + strip.at(0, 1, p.S), 0);
    const Wide<T> rstd = strip.tile.load(p.rstd + strip.at(0, 1, p.S), 0);
    Wide<T> c1{}, c2{};
#pragma unroll ACTIVATED ? 1 : 2
    for (int64_t n = threadIdx.y; n < p.N; n += kUnitThreads) {
      const Unit<T> unit = load_unit<ACTIVATED>(p, strip, n, mean, rstd);
#pragma unroll
      for (int k = 0; k < V; ++k) {
        c1.v[k] += unit.du.v[k] * unit.w;
        c2.v[k] += unit.du.v[k] * unit.w * unit.xhat.v[k];
      }
    }
    sum_units<T>(c1, scratch[0]);
    sum_units<T>(c2, scratch[1]);
#pragma unroll
    for (int k = 0; k < V; ++k) c1.v[k] /= A(p.N), c2.v[k] /= A(p.N);
#pragma unroll 1
    for (int64_t base = 0; base < p.N; base += kUnitThreads) {
      const bool live = base + threadIdx.y < p.N;  // every lane stays: add_sums adds over lanes
      const int64_t n = live ? base + threadIdx.y : 0;
      Strip<T, PACKED> those = strip;
      if (!live) those.tile.columns = 0;
      const Unit<T> unit = load_unit<ACTIVATED>(p, those, n, mean, rstd);
      Wide<T> dx =
          Wide<T>::of([&](int k) { return rstd.v[k] * (unit.du.v[k] * unit.w - c1.v[k] - unit.xhat.v[k] * c2.v[k]); });
      if (p.dsummed != nullptr) {
        const Wide<T> dsummed = widen<T>(those.tile.load(p.dsummed + strip.at(n, p.N, p.S), 0));
#pragma unroll
        for (int k = 0; k < V; ++k) dx.v[k] += dsummed.v[k];
      }
      those.tile.store(p.dx + strip.at(n, p.N, p.S), 0, narrow<T>(dx));
      if (p.partial != nullptr) add_sums(p, unit, n, live, step == blockIdx.x);
    }
    __syncthreads();  // the next step writes scratch again
  }
}

// workspace(n) gives room for n accumulators
template <typename T, typename Workspace>
void strided_rows_backward(StridedRowsBackward<T> p, LineSums<T> sums, const Device& device, Workspace workspace) {
  const bool wanted = sums.dweight != nullptr || sums.dbias != nullptr;
  const auto run = [&](auto kernel) {
    const int64_t steps = p.B * Strip<T, true>::steps(p.S);
    sums.P = p.P = std::min<int64_t>(steps, resident_blocks(kernel, kStripThreads * kUnitThreads, device));
    if (wanted) sums.partial = p.partial = workspace(2 * p.P * p.N);
    launch(kernel, dim3(p.P), dim3(kStripThreads, kUnitThreads), device, p);
    if (wanted) line_sums(sums, device);
  };
  if constexpr (kFast<T>) {
    const bool identity = p.affine.activation == Activation::kIdentity;
    if (p.packed)
      return identity ? run(strided_rows_backward_kernel<T, true, false>)
                      : run(strided_rows_backward_kernel<T, true, true>);
  }
  run(strided_rows_backward_kernel<T, false, true>);
}

}  // namespace normkernels::cuda
