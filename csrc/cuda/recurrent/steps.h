// The recurrent family between torch and its kernels: the walk over a sequence, a product and a kernel in every step.
#pragma once

#ifndef USE_CUDA
#define USE_CUDA  // before torch's headers, as in tensors.h
#endif
#include "cuda/base/tensors.h"
#include "cuda/recurrent/cells.cuh"
#include "sequence.h"

namespace normkernels::cuda {

// In every step: a = h weight_hh', then the cell's kernel.
template <typename P>
void walk_forward(P p, const Tensor& y, const Tensor& weight_hh, const Tensor& h, const Tensor& a,
                  const Optional& batch_sizes, bool reverse, const Device& device) {
  Tensor weight = weight_hh;
  const Tensor transposed = torch::stable::transpose(weight, 0, 1);
  for (const SequenceStep& step : walk(y.size(0), h.size(0), batch_sizes, reverse)) {
    p.t = step.t, p.rows = step.rows, p.first = step.first, p.own = kept(step, a, y.size(0));
    product(rows_of(h, 0, step.rows), transposed, rows_of(a, p.own, step.rows));
    run_step(p, device);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }
}

// In every step, from the last one walked: the cell's kernel, then dh = da weight_hh.
template <typename P>
void walk_backward(P p, const Tensor& da, const Tensor& weight_hh, const Tensor& dh, const Optional& batch_sizes,
                   bool reverse, const Device& device) {
  for (const SequenceStep& step : walk(da.size(0), dh.size(0), batch_sizes, !reverse)) {
    p.t = step.t, p.rows = step.rows, p.first = step.first;
    run_step(p, device);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
    product(rows_of(da, step.first, step.rows), weight_hh, rows_of(dh, 0, step.rows));
  }
}

template <typename T>
acc_t<T>* zeros(Session<T>& session, int64_t n) {
  acc_t<T>* room = session.room(n);
  STD_CUDA_CHECK(cudaMemsetAsync(room, 0, n * sizeof(acc_t<T>), session.device.stream));
  return room;
}

// Lines (2, P, N) of sums for dweight and dbias, at first zero; null where neither is wanted.
template <typename T>
acc_t<T>* zero_lines(Session<T>& session, const Optional& dweight, const Optional& dbias, int64_t P, int64_t N) {
  return dweight || dbias ? zeros(session, 2 * P * N) : nullptr;
}

template <typename T>
void add_lines_up(const acc_t<T>* lines, const Optional& dweight, const Optional& dbias, int64_t P, int64_t N,
                  const Device& device) {
  if (lines == nullptr) return;
  LineSums<T> sums = line_sums_of<T>(dweight, dbias, N);
  sums.partial = lines, sums.P = P;
  line_sums(sums, device);
}

// A cell's parameters, with those filled in that all cells have.
template <template <typename> typename Cell, typename T>
Cell<T> step_forward(const Tensor& x, const Optional& weight, const Optional& bias, const Tensor& h, const Tensor& y,
                     const Tensor& a, bool separate, double eps) {
  Cell<T> p{};
  p.input = input<T>(x), p.h = output<T>(h), p.y = output<T>(y), p.a = output<T>(a);
  p.weight = parameter(weight), p.bias = parameter(bias);
  p.separate = separate, p.eps = eps, p.hidden = h.size(1);
  return p;
}

template <template <typename> typename Cell, typename T>
Cell<T> step_backward(const Tensor& dy, const Tensor& a, const Optional& weight, const Tensor& dh, const Tensor& dinput,
                      const Optional& da) {
  Cell<T> p{};
  p.dy = input<T>(dy), p.a = input<T>(a), p.weight = parameter(weight);
  p.dh = output<T>(dh), p.dinput = output<T>(dinput), p.da = output<T>(da), p.hidden = dh.size(1);
  return p;
}

template <typename T>
bool packed_step(const StepForward<T>& p) {
  return packed<T>({p.hidden}, {p.input, p.h, p.y, p.a, p.weight.data, p.bias.data});
}

template <typename T>
bool packed_step(const StepBackward<T>& p) {
  return packed<T>({p.hidden}, {p.dy, p.a, p.weight.data, p.bias.data, p.dh, p.dinput, p.da, p.partial});
}

template <typename T>
LstmForward<T> lstm_forward(const Tensor& gates, const Tensor& c, const Tensor& cells, const Optional& raw_cells,
                            const Optional& cell_weight, const Optional& cell_bias) {
  using A = acc_t<T>;
  return {output<T>(gates),     output<A>(c),           output<A>(cells),
          output<A>(raw_cells), parameter(cell_weight), parameter(cell_bias)};
}

template <typename T>
LstmBackward<T> lstm_backward(const Tensor& gates, const Tensor& cells, const Optional& raw_cells,
                              const Tensor& previous_cells, const Tensor& dc, const Optional& cell_weight,
                              const Optional& cell_bias, acc_t<T>* cell_partial) {
  using A = acc_t<T>;
  return {input<T>(gates), input<A>(cells),        input<A>(raw_cells),  input<A>(previous_cells),
          output<A>(dc),   parameter(cell_weight), parameter(cell_bias), cell_partial};
}

}  // namespace normkernels::cuda
