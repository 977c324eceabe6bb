// A step of the RNN with layer norm: h = f(LN(a) + input), forward and backward.
#pragma once

#include "cuda/recurrent/layer_backward.cuh"
#include "cuda/recurrent/layer_forward.cuh"

namespace normkernels::cuda {

template <typename T>
struct LayerNormRnnForward : LayerStepForward<T, 1> {
  bool relu;
};

template <typename T>
struct LayerNormRnnBackward : LayerStepBackward<T, 1> {
  const T* y;
  bool relu;
};

template <typename T, bool PACKED>
__global__ void __launch_bounds__(kCellThreads) layer_norm_rnn_forward_kernel(const LayerNormRnnForward<T> p) {
  __shared__ acc_t<T> scratch[2][1][32];
  BlockSum<acc_t<T>, 1> sum{scratch};
  const LayerForward<T, 1, PACKED> row(p, sum);
#pragma unroll 1
  for (int c = 0; c < row.chunks; ++c) {
    Wide<T> h = row.term(0, c);
#pragma unroll
    for (int k = 0; k < kPack<T>; ++k) h.v[k] = nonlinearity(h.v[k], p.relu);
    row.store_h(c, h);
  }
}

template <typename T, bool PACKED>
__global__ void __launch_bounds__(kCellThreads, kFewBlocks<!kFast<T>, 1>)
    layer_norm_rnn_backward_kernel(const LayerNormRnnBackward<T> p) {
  __shared__ acc_t<T> scratch[2][2][32];
  BlockSum<acc_t<T>, 2> sum{scratch};
  for (int64_t b = blockIdx.x; b < p.rows; b += p.P) {
    LayerBackward<T, 1, PACKED> row(p, b);
    const auto load_dz = [&](int c) {
      const Wide<T> y = row.load(p.y + row.at * p.hidden, c);
      Wide<T> dz = row.load_dh(c);
#pragma unroll
      for (int k = 0; k < kPack<T>; ++k) dz.v[k] = nonlinearity_grad(dz.v[k], y.v[k], p.relu);
      return dz;
    };
#pragma unroll 1
    for (int c = 0; c < row.chunks; ++c) row.add(0, c, load_dz(c));
    row.finish_sums(sum);
#pragma unroll 1
    for (int c = 0; c < row.chunks; ++c) {
      const Wide<T> dz = load_dz(c);
      row.store(0, c, dz, dz);
    }
  }
}

// ---- host ----

template <typename T>
void run_step(const LayerNormRnnForward<T>& p, const Device& device) {
  if constexpr (kFast<T>)
    if (p.packed) return launch_layer<T>(layer_norm_rnn_forward_kernel<T, true>, p, p.rows, device);
  launch_layer<T>(layer_norm_rnn_forward_kernel<T, false>, p, p.rows, device);
}

template <typename T>
void run_step(const LayerNormRnnBackward<T>& p, const Device& device) {
  if constexpr (kFast<T>)
    if (p.packed) return launch_layer_backward<T>(layer_norm_rnn_backward_kernel<T, true>, p, device);
  launch_layer_backward<T>(layer_norm_rnn_backward_kernel<T, false>, p, device);
}

}  // namespace normkernels::cuda
