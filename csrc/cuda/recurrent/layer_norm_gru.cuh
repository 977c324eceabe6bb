// A step of the GRU with layer norm: r, z = sigmoid(q + input), n = tanh(r q + input), h = n + z (h - n), q = LN(a).
#pragma once

#include "cuda/recurrent/layer_backward.cuh"
#include "cuda/recurrent/layer_forward.cuh"

namespace normkernels::cuda {

template <typename T>
struct LayerNormGruForward : LayerStepForward<T, 3> {
  T* gates;  // (rows, 3 H): r, z, n
};

template <typename T>
struct LayerNormGruBackward : LayerStepBackward<T, 3> {
  const T *gates, *previous;  // previous: (total, H), h before each step
  acc_t<T>* direct;           // (B, H): what comes back to h not through a
};

template <typename T, bool PACKED>
__global__ void __launch_bounds__(kCellThreads) layer_norm_gru_forward_kernel(const LayerNormGruForward<T> p) {
  __shared__ acc_t<T> scratch[2][3][32];
  BlockSum<acc_t<T>, 3> sum{scratch};
  const LayerForward<T, 3, PACKED> row(p, sum);
  T* gates = p.gates + row.own * 3 * p.hidden;
#pragma unroll 1
  for (int c = 0; c < row.chunks; ++c) {
    Wide<T> r = row.term(0, c), z = row.term(1, c), n = row.normed(2, c);
    const Wide<T> more = p.separate ? row.input(2, c) : Wide<T>{}, h = row.load(p.h + blockIdx.x * p.hidden, c);
#pragma unroll
    for (int k = 0; k < kPack<T>; ++k) {
      r.v[k] = sigmoid(r.v[k]), z.v[k] = sigmoid(z.v[k]);
      n.v[k] = tanh(more.v[k] + r.v[k] * n.v[k]);
    }
    row.tile.store(gates, c, narrow<T>(r));
    row.tile.store(gates + p.hidden, c, narrow<T>(z));
    row.tile.store(gates + 2 * p.hidden, c, narrow<T>(n));
    row.store_h(c, Wide<T>::of([&](int k) { return n.v[k] + z.v[k] * (h.v[k] - n.v[k]); }));
  }
}

// What one chunk gives back: to what r, z and n are of; to q; to h before the step.
template <typename T>
struct GruChunk {
  Wide<T> r, z, n, q, direct;
};

template <typename T, bool PACKED>
__device__ GruChunk<T> gru_chunk(const LayerNormGruBackward<T>& p, const LayerBackward<T, 3, PACKED>& row, int c) {
  const Wide<T> r = row.load(p.gates + row.place(0), c), z = row.load(p.gates + row.place(1), c);
  const Wide<T> n = row.load(p.gates + row.place(2), c), xhat = row.xhat(2, c);
  const Wide<T> w = row.load(p.weight, 1, 2 * p.hidden, c), b = row.load(p.bias, 0, 2 * p.hidden, c);
  const Wide<T> previous = row.load(p.previous + row.at * p.hidden, c), dh = row.load_dh(c);
  const Wide<T> direct = row.load(p.direct + row.row * p.hidden, c);
  GruChunk<T> chunk;
#pragma unroll
  for (int k = 0; k < kPack<T>; ++k) {
    const acc_t<T> q = xhat.v[k] * w.v[k] + b.v[k];
    const GruGrads<acc_t<T>> d(dh.v[k] + direct.v[k], r.v[k], z.v[k], n.v[k], q, previous.v[k]);
    chunk.r.v[k] = d.r, chunk.z.v[k] = d.z, chunk.n.v[k] = d.n, chunk.q.v[k] = d.q, chunk.direct.v[k] = d.direct;
  }
  return chunk;
}

template <typename T, bool PACKED>
__global__ void __launch_bounds__(kCellThreads) layer_norm_gru_backward_kernel(const LayerNormGruBackward<T> p) {
  __shared__ acc_t<T> scratch[2][6][32];
  BlockSum<acc_t<T>, 6> sum{scratch};
  for (int64_t b = blockIdx.x; b < p.rows; b += p.P) {
    LayerBackward<T, 3, PACKED> row(p, b);
#pragma unroll 1
    for (int c = 0; c < row.chunks; ++c) {
      const GruChunk<T> d = gru_chunk(p, row, c);
      row.add(0, c, d.r), row.add(1, c, d.z), row.add(2, c, d.q);
    }
    row.finish_sums(sum);
#pragma unroll 1
    for (int c = 0; c < row.chunks; ++c) {
      const GruChunk<T> d = gru_chunk(p, row, c);
      row.tile.store(p.direct + b * p.hidden, c, d.direct);
      row.store(0, c, d.r, d.r), row.store(1, c, d.z, d.z), row.store(2, c, d.q, d.n);
    }
  }
}

template <typename T>
struct AddDirect {
  T* dh;
  const acc_t<T>* direct;
  int64_t count;
};

// dh += direct
template <typename T>
__global__ void __launch_bounds__(kCellThreads) layer_norm_gru_add_kernel(const AddDirect<T> p) {
  const int64_t i = int64_t(blockIdx.x) * kCellThreads + threadIdx.x;
  if (i < p.count) p.dh[i] = narrow<T>(widen(p.dh[i]) + p.direct[i]);
}

// ---- host ----

template <typename T>
void run_step(const LayerNormGruForward<T>& p, const Device& device) {
  if constexpr (kFast<T>)
    if (p.packed) return launch_layer<T>(layer_norm_gru_forward_kernel<T, true>, p, p.rows, device);
  launch_layer<T>(layer_norm_gru_forward_kernel<T, false>, p, p.rows, device);
}

template <typename T>
void run_step(const LayerNormGruBackward<T>& p, const Device& device) {
  if constexpr (kFast<T>)
    if (p.packed) return launch_layer_backward<T>(layer_norm_gru_backward_kernel<T, true>, p, device);
  launch_layer_backward<T>(layer_norm_gru_backward_kernel<T, false>, p, device);
}

// after the last step, of `batch` rows
template <typename T>
void layer_norm_gru_add(const LayerNormGruBackward<T>& p, int64_t batch, const Device& device) {
  const AddDirect<T> add{p.dh, p.direct, batch * p.hidden};
  launch(layer_norm_gru_add_kernel<T>, dim3(ceil_div<int64_t>(add.count, kCellThreads)), kCellThreads, device, add);
}

}  // namespace normkernels::cuda
