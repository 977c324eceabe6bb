// A step of the LSTM with batch norm: i, f, g, o of BN(a) + input, c = f c + i g, h = o tanh(BN(c)).
#pragma once

#include "cuda/recurrent/batch_forward.cuh"

namespace normkernels::cuda {

template <typename T>
struct BatchNormLstmFwd : ColumnStepFwd<T, 4> {
  LstmFwd<T> lstm;
  acc_t<T>*cell_mean, *cell_var;  // (T, H), or absent: no norm of the cell
};

// The cell before any norm, into raw, and i, f, g into gates.
template <typename T>
__device__ void store_cell(const BatchNormLstmFwd<T>& p, const ColumnFwd<T, 4>& column, acc_t<T>* raw) {
  column.each_row([&](int64_t r) {
    const acc_t<T> i = sigmoid(column.term(r, 0)), f = sigmoid(column.term(r, 1)), g = tanh(column.term(r, 2));
    const int64_t to = column.at(p.own + r, 0), at = r * p.hidden + column.unit;
    p.lstm.gates[to] = narrow<T>(i);
    p.lstm.gates[to + p.hidden] = narrow<T>(f);
    p.lstm.gates[to + 2 * p.hidden] = narrow<T>(g);
    raw[at] = f * p.lstm.c[at] + i * g;
  });
}

template <typename T>
__global__ void __launch_bounds__(kCellUnits* kCellRows) batch_norm_lstm_fwd_kernel(const BatchNormLstmFwd<T> p) {
  using A = acc_t<T>;
  __shared__ ColumnScratch<A, 4> scratch[2];
  ColumnFwd<T, 4> column(p, scratch);
  A* raw = (p.lstm.raw_cells == nullptr ? p.lstm.cells : p.lstm.raw_cells) + p.own * p.hidden;
  store_cell(p, column, raw);
  A mean[1] = {}, rstd[1] = {1}, weight = 1, bias = 0;
  if (p.cell_mean != nullptr) {
    const int64_t at = p.t * p.hidden + column.unit;
    if (p.training) {
      rstd[0] = 0;
      measure(column, mean, rstd, [&](int64_t r, int) { return raw[r * p.hidden + column.unit]; });
      if (column.writes()) p.cell_mean[at] = mean[0], p.cell_var[at] = rstd[0];
    } else {
      mean[0] = p.cell_mean[at], rstd[0] = p.cell_var[at];
    }
    rstd[0] = rsqrt(rstd[0] + p.eps);
    weight = load_channel<T>(p.lstm.cell_weight, column.unit, 0, 1);
    bias = load_channel<T>(p.lstm.cell_bias, column.unit, 0, 0);
  }
  column.each_row([&](int64_t r) {
    const int64_t at = r * p.hidden + column.unit;
    const A cell = raw[at], normed = (cell - mean[0]) * rstd[0] * weight + bias, o = sigmoid(column.term(r, 3));
    p.lstm.gates[column.at(p.own + r, 3)] = narrow<T>(o);
    if (p.lstm.raw_cells != nullptr) p.lstm.cells[p.own * p.hidden + at] = normed;
    p.lstm.c[at] = p.lstm.raw_cells != nullptr ? normed : cell;
    column.store_h(r, o * tanh(normed));
  });
}

// ---- host ----

template <typename T>
void batch_norm_lstm_step(const BatchNormLstmFwd<T>& p, const Device& device) {
  launch_columns(batch_norm_lstm_fwd_kernel<T>, p, device);
}

}  // namespace normkernels::cuda
