// A step of the LSTM with batch norm: i, f, g, o of BN(a) + input, c = f c + i g, h = o tanh(BN(c)).
#pragma once

#include "cuda/recurrent/batch_forward.cuh"

namespace normkernels::cuda {

template <typename T>
struct BatchNormLstmForward : BatchStepForward<T, 4> {
  LstmForward<T> lstm;
  acc_t<T>*cell_mean, *cell_var;  // (T, H), or absent: no norm of the cell
};

// The cell before any norm, into raw, and i, f, g into gates.
template <typename T>
__device__ void store_cell(const BatchNormLstmForward<T>& p, const BatchForward<T, 4>& batch, acc_t<T>* raw) {
  batch.each_row([&](int64_t r) {
    const acc_t<T> i = sigmoid(batch.term(r, 0)), f = sigmoid(batch.term(r, 1)), g = tanh(batch.term(r, 2));
    const int64_t to = batch.at(p.own + r, 0), at = r * p.hidden + batch.unit;
    p.lstm.gates[to] = narrow<T>(i);
    p.lstm.gates[to + p.hidden] = narrow<T>(f);
    p.lstm.gates[to + 2 * p.hidden] = narrow<T>(g);
    raw[at] = f * p.lstm.c[at] + i * g;
  });
}

template <typename T>
__global__ void __launch_bounds__(kCellUnits* kCellRows)
    batch_norm_lstm_forward_kernel(const BatchNormLstmForward<T> p) {
  using A = acc_t<T>;
  __shared__ BatchScratch<A, 4> scratch[2];
  BatchForward<T, 4> batch(p, scratch);
  A* raw = (p.lstm.raw_cells == nullptr ? p.lstm.cells : p.lstm.raw_cells) + p.own * p.hidden;
  store_cell(p, batch, raw);
  A mean[1] = {}, rstd[1] = {1}, weight = 1, bias = 0;
  if (p.cell_mean != nullptr) {
    const int64_t at = p.t * p.hidden + batch.unit;
    if (p.training) {
      rstd[0] = 0;
      measure(batch, mean, rstd, [&](int64_t r, int) { return raw[r * p.hidden + batch.unit]; });
      if (batch.writes()) p.cell_mean[at] = mean[0], p.cell_var[at] = rstd[0];
    } else {
      mean[0] = p.cell_mean[at], rstd[0] = p.cell_var[at];
    }
    rstd[0] = rsqrt(rstd[0] + p.eps);
    weight = load_value<T>(p.lstm.cell_weight, batch.unit, 0, 1);
    bias = load_value<T>(p.lstm.cell_bias, batch.unit, 0, 0);
  }
  batch.each_row([&](int64_t r) {
    const int64_t at = r * p.hidden + batch.unit;
    const A cell = raw[at], normed = (cell - mean[0]) * rstd[0] * weight + bias, o = sigmoid(batch.term(r, 3));
    p.lstm.gates[batch.at(p.own + r, 3)] = narrow<T>(o);
    if (p.lstm.raw_cells != nullptr) p.lstm.cells[p.own * p.hidden + at] = normed;
    p.lstm.c[at] = p.lstm.raw_cells != nullptr ? normed : cell;
    batch.store_h(r, o * tanh(normed));
  });
}

// ---- host ----

template <typename T>
void run_step(const BatchNormLstmForward<T>& p, const Device& device) {
  launch_batch(batch_norm_lstm_forward_kernel<T>, p, device);
}

}  // namespace normkernels::cuda
