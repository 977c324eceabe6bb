// A step of the LSTM with layer norm: i, f, g, o of LN(a) + input, c = f c + i g, h = o tanh(LN(c)).
#pragma once

#include "cuda/recurrent/layer_forward.cuh"

namespace normkernels::cuda {

template <typename T>
struct LayerNormLstmForward : LayerStepForward<T, 4> {
  LstmForward<T> lstm;
  acc_t<T>*cell_mean, *cell_rstd;  // (rows,), or absent: no norm of the cell
};

// The row's cell before any norm, into `raw`, and i, f, g into gates. Returns this thread's part of the cell's sum.
template <typename T, bool PACKED>
__device__ acc_t<T> store_cell(const LayerNormLstmForward<T>& p, const LayerForward<T, 4, PACKED>& row, acc_t<T>* raw) {
  T* gates = p.lstm.gates + row.own * 4 * p.hidden;
  acc_t<T> sum = 0;
#pragma unroll 1
  for (int c = 0; c < row.chunks; ++c) {
    Wide<T> i = row.term(0, c), f = row.term(1, c), g = row.term(2, c);
    Wide<T> cell = row.load(p.lstm.c + blockIdx.x * p.hidden, c);
#pragma unroll
    for (int k = 0; k < kPack<T>; ++k) {
      i.v[k] = sigmoid(i.v[k]), f.v[k] = sigmoid(f.v[k]), g.v[k] = tanh(g.v[k]);
      cell.v[k] = f.v[k] * cell.v[k] + i.v[k] * g.v[k];
      if (row.tile.holds(c, k)) sum += cell.v[k];
    }
    row.tile.store(gates, c, narrow<T>(i));
    row.tile.store(gates + p.hidden, c, narrow<T>(f));
    row.tile.store(gates + 2 * p.hidden, c, narrow<T>(g));
    row.tile.store(raw, c, cell);
  }
  return sum;
}

template <typename T, bool PACKED>
__global__ void __launch_bounds__(kCellThreads) layer_norm_lstm_forward_kernel(const LayerNormLstmForward<T> p) {
  using A = acc_t<T>;
  __shared__ A scratch[2][4][32];
  BlockSum<A, 4> sum{scratch};
  const LayerForward<T, 4, PACKED> row(p, sum);
  A* raw = (p.lstm.raw_cells == nullptr ? p.lstm.cells : p.lstm.raw_cells) + row.own * p.hidden;
  A mean[1] = {store_cell(p, row, raw)}, rstd[1] = {};
  if (p.cell_mean != nullptr) {
    sum(mean);
    mean[0] /= A(p.hidden);
#pragma unroll 1
    for (int c = 0; c < row.chunks; ++c) rstd[0] += row.squares(row.load(raw, c), c, mean[0]);
    sum(rstd);
    rstd[0] = rsqrt(rstd[0] / A(p.hidden) + p.eps);
    if (threadIdx.x == 0) p.cell_mean[row.own] = mean[0], p.cell_rstd[row.own] = rstd[0];
  }
#pragma unroll 1
  for (int c = 0; c < row.chunks; ++c) {
    Wide<T> o = row.term(3, c), cell = row.load(raw, c), normed = cell;
    if (p.cell_mean != nullptr) {
      const Wide<T> w = row.load(p.lstm.cell_weight, 1, 0, c), b = row.load(p.lstm.cell_bias, 0, 0, c);
#pragma unroll
      for (int k = 0; k < kPack<T>; ++k) normed.v[k] = (cell.v[k] - mean[0]) * rstd[0] * w.v[k] + b.v[k];
    }
    if (p.lstm.raw_cells != nullptr) {
      cell = normed;
      row.tile.store(p.lstm.cells + row.own * p.hidden, c, cell);
    }
    row.tile.store(p.lstm.c + blockIdx.x * p.hidden, c, cell);
#pragma unroll
    for (int k = 0; k < kPack<T>; ++k) o.v[k] = sigmoid(o.v[k]), normed.v[k] = o.v[k] * tanh(normed.v[k]);
    row.tile.store(p.lstm.gates + (row.own * 4 + 3) * p.hidden, c, narrow<T>(o));
    row.store_h(c, normed);
  }
}

// ---- host ----

template <typename T>
void run_step(const LayerNormLstmForward<T>& p, const Device& device) {
  if constexpr (kFast<T>)
    if (p.packed) return launch_layer<T>(layer_norm_lstm_forward_kernel<T, true>, p, p.rows, device);
  launch_layer<T>(layer_norm_lstm_forward_kernel<T, false>, p, p.rows, device);
}

}  // namespace normkernels::cuda
