// A step of the RNN with batch norm: h = f(BN(a) + input), forward and backward.
#pragma once

#include "cuda/recurrent/batch_backward.cuh"
#include "cuda/recurrent/batch_forward.cuh"

namespace normkernels::cuda {

template <typename T>
struct BatchNormRnnFwd : ColumnStepFwd<T, 1> {
  bool relu;
};

template <typename T>
struct BatchNormRnnBwd : ColumnStepBwd<T, 1> {
  const T* y;
  bool relu;
};

template <typename T>
__global__ void __launch_bounds__(kCellUnits* kCellRows) batch_norm_rnn_fwd_kernel(const BatchNormRnnFwd<T> p) {
  __shared__ ColumnScratch<acc_t<T>, 1> scratch[2];
  const ColumnFwd<T, 1> column(p, scratch);
  column.each_row([&](int64_t r) { column.store_h(r, nonlinearity(column.term(r, 0), p.relu)); });
}

template <typename T>
__global__ void __launch_bounds__(kCellUnits* kCellRows) batch_norm_rnn_bwd_kernel(const BatchNormRnnBwd<T> p) {
  __shared__ ColumnScratch<acc_t<T>, 2> scratch[2];
  ColumnBwd<T, 1> column(p, scratch);
  const auto dz = [&](int64_t r) { return nonlinearity_grad(column.load_dh(r), widen(p.y[column.of_row(r)]), p.relu); };
  column.each_row([&](int64_t r) { column.add(r, 0, dz(r)); });
  column.finish_sums();
  column.each_row([&](int64_t r) { column.store(r, 0, dz(r)); });
}

// ---- host ----

template <typename T>
void batch_norm_rnn_step(const BatchNormRnnFwd<T>& p, const Device& device) {
  launch_columns(batch_norm_rnn_fwd_kernel<T>, p, device);
}

template <typename T>
void batch_norm_rnn_step(const BatchNormRnnBwd<T>& p, const Device& device) {
  launch_columns(batch_norm_rnn_bwd_kernel<T>, p, device);
}

}  // namespace normkernels::cuda
