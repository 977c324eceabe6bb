// A step of the LSTM with batch norm backward: through h = o tanh(BN(c)), then c = f c + i g, then BN(a).
#pragma once

#include "cuda/recurrent/batch_backward.cuh"

namespace normkernels::cuda {

template <typename T>
struct BatchNormLstmBackward : BatchStepBackward<T, 4> {
  LstmBackward<T> lstm;
  const acc_t<T>*cell_mean, *cell_var;  // (T, H), or absent
};

// What h gives back: to o, and to the normalised cell, of which xhat is the part before the affine.
template <typename A>
struct UnitGrad {
  A o, normed, xhat;
};

// This thread's unit in the step, with the norm of its cell.
template <typename T>
struct LstmBatch : BatchBackward<T, 4> {
  using A = acc_t<T>;
  const BatchNormLstmBackward<T>& p;
  const A* raw;          // the cell before its norm
  bool normed, carried;  // the cell has a norm; dc is of what it gives, not of what it takes
  A cell_mean = 0, cell_rstd = 1, cell_weight = 1, cell_bias = 0;
  A cell_sums[2] = {};

  __device__ LstmBatch(const BatchNormLstmBackward<T>& p, BatchScratch<A, 8>* scratch)
      : BatchBackward<T, 4>(p, scratch),
        p(p),
        raw(p.lstm.raw_cells == nullptr ? p.lstm.cells : p.lstm.raw_cells),
        normed(p.cell_mean != nullptr),
        carried(!normed || p.lstm.raw_cells != nullptr) {
    if (!normed) return;
    cell_mean = p.cell_mean[p.t * p.hidden + this->unit];
    cell_rstd = rsqrt(p.cell_var[p.t * p.hidden + this->unit] + p.eps);
    cell_weight = load_value<T>(p.lstm.cell_weight, this->unit, 0, 1);
    cell_bias = load_value<T>(p.lstm.cell_bias, this->unit, 0, 0);
  }

  __device__ A gate(int64_t r, int g) const { return widen(p.lstm.gates[this->at(p.first + r, g)]); }
  __device__ A& dc(int64_t r) const { return p.lstm.dc[this->of_state(r)]; }

  __device__ UnitGrad<A> output_grad(int64_t r) const {
    const A dh = this->load_dh(r), xhat = (raw[this->of_row(r)] - cell_mean) * cell_rstd;
    const A h = tanh(xhat * cell_weight + cell_bias);
    return {dh * h, dh * gate(r, 3) * (1 - h * h), xhat};
  }

  __device__ void sum_cell() {
    this->each_row([&](int64_t r) {
      const UnitGrad<A> d = output_grad(r);
      const A dq = carried ? d.normed + dc(r) : d.normed;
      cell_sums[0] += dq * d.xhat, cell_sums[1] += dq;
    });
    finish_units<1>(*this, cell_sums, p.lstm.cell_partial, p.hidden, p.training);
  }

  // what comes back to f c + i g
  __device__ A cell_grad(int64_t r, const UnitGrad<A>& d) const {
    const A dcell = carried ? d.normed + dc(r) : d.normed;
    if (!normed) return dcell;
    const A before = cell_rstd * cell_weight * (dcell - cell_sums[1] - d.xhat * cell_sums[0]);
    return carried ? before : before + dc(r);
  }

  // body(gate, its dz) for each gate
  template <typename Body>
  __device__ void each_gate(int64_t r, A dcell, A dout, Body body) const {
    const A i = gate(r, 0), f = gate(r, 1), g = gate(r, 2), o = gate(r, 3);
    const A before = p.lstm.previous_cells[this->of_row(r)];
    for_gates<4>([&](auto gate) { body(gate, lstm_gate_grad<gate>(i, f, g, o, before, dcell, dout)); });
  }
};

template <typename T>
__global__ void __launch_bounds__(kCellUnits* kCellRows)
    batch_norm_lstm_backward_kernel(const BatchNormLstmBackward<T> p) {
  using A = acc_t<T>;
  __shared__ BatchScratch<A, 8> scratch[2];
  LstmBatch<T> batch(p, scratch);
  if (batch.normed) batch.sum_cell();
  batch.each_row([&](int64_t r) {
    const UnitGrad<A> d = batch.output_grad(r);
    const A dcell = batch.cell_grad(r, d);
    batch.dc(r) = dcell;
    batch.each_gate(r, dcell, d.o, [&](auto g, A dz) { batch.add(r, g, dz); });
  });
  batch.finish_sums();
  batch.each_row([&](int64_t r) {
    const A dcell = batch.dc(r);
    batch.each_gate(r, dcell, batch.output_grad(r).o, [&](auto g, A dz) { batch.store(r, g, dz); });
    batch.dc(r) = dcell * batch.gate(r, 1);
  });
}

// ---- host ----

template <typename T>
void run_step(const BatchNormLstmBackward<T>& p, const Device& device) {
  launch_batch(batch_norm_lstm_backward_kernel<T>, p, device);
}

}  // namespace normkernels::cuda
