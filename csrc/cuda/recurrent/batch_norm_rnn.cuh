// A step of the RNN with batch norm: h = f(BN(a) + input), forward and backward.
#pragma once

#include "cuda/recurrent/batch_backward.cuh"
#include "cuda/recurrent/batch_forward.cuh"

namespace normkernels::cuda {

template <typename T>
struct BatchNormRnnForward : BatchStepForward<T, 1> {
  bool relu;
};

template <typename T>
struct BatchNormRnnBackward : BatchStepBackward<T, 1> {
  const T* y;
  bool relu;
};

template <typename T>
__global__ void __launch_bounds__(kCellUnits* kCellRows) batch_norm_rnn_forward_kernel(const BatchNormRnnForward<T> p) {
  __shared__ BatchScratch<acc_t<T>, 1> scratch[2];
  const BatchForward<T, 1> batch(p, scratch);
  batch.each_row([&](int64_t r) { batch.store_h(r, nonlinearity(batch.term(r, 0), p.relu)); });
}

template <typename T>
__global__ void __launch_bounds__(kCellUnits* kCellRows)
    batch_norm_rnn_backward_kernel(const BatchNormRnnBackward<T> p) {
  __shared__ BatchScratch<acc_t<T>, 2> scratch[2];
  BatchBackward<T, 1> batch(p, scratch);
  const auto dz = [&](int64_t r) { return nonlinearity_grad(batch.load_dh(r), widen(p.y[batch.of_row(r)]), p.relu); };
  batch.each_row([&](int64_t r) { batch.add(r, 0, dz(r)); });
  batch.finish_sums();
  batch.each_row([&](int64_t r) { batch.store(r, 0, dz(r)); });
}

// ---- host ----

template <typename T>
void run_step(const BatchNormRnnForward<T>& p, const Device& device) {
  launch_batch(batch_norm_rnn_forward_kernel<T>, p, device);
}

template <typename T>
void run_step(const BatchNormRnnBackward<T>& p, const Device& device) {
  launch_batch(batch_norm_rnn_backward_kernel<T>, p, device);
}

}  // namespace normkernels::cuda
