// A step of the LSTM with layer norm backward: through h = o tanh(LN(c)), then c = f c + i g, then LN(a).
#pragma once

#include "cuda/recurrent/layer_backward.cuh"

namespace normkernels::cuda {

template <typename T>
struct LayerNormLstmBackward : LayerStepBackward<T, 4> {
  LstmBackward<T> lstm;
  const acc_t<T>*cell_mean, *cell_rstd;  // (total,), or absent
};

// What one chunk of h gives back: to o, and to the normalised cell, of which xhat is the part before the affine.
template <typename T>
struct OutputGrad {
  Wide<T> o, normed, xhat;
};

// One row of the step, with the norm of its cell.
template <typename T, bool PACKED>
struct LstmRow : LayerBackward<T, 4, PACKED> {
  using A = acc_t<T>;
  const LayerNormLstmBackward<T>& p;
  const A* raw;  // the cell before its norm
  A* dc;
  bool normed, carried;  // the cell has a norm; dc is of what it gives, not of what it takes
  A cell_mean = 0, cell_rstd = 1;
  A cell_sums[2] = {};  // of g * xhat and of g in the cell's norm; then their means

  __device__ LstmRow(const LayerNormLstmBackward<T>& p, int64_t b)
      : LayerBackward<T, 4, PACKED>(p, b),
        p(p),
        raw((p.lstm.raw_cells == nullptr ? p.lstm.cells : p.lstm.raw_cells) + this->at * p.hidden),
        dc(p.lstm.dc + b * p.hidden),
        normed(p.cell_mean != nullptr),
        carried(!normed || p.lstm.raw_cells != nullptr) {
    if (normed) cell_mean = p.cell_mean[this->at], cell_rstd = p.cell_rstd[this->at];
  }

  __device__ Wide<T> gate(int g, int c) const { return this->load(p.lstm.gates + this->place(g), c); }
  __device__ Wide<T> cell_weight(int c) const { return this->load(p.lstm.cell_weight, 1, 0, c); }

  __device__ OutputGrad<T> output_grad(int c) const {
    OutputGrad<T> d{this->load_dh(c), gate(3, c), this->load_xhat(raw, c, cell_mean, cell_rstd)};
    const Wide<T> w = cell_weight(c), b = this->load(p.lstm.cell_bias, 0, 0, c);
#pragma unroll
    for (int k = 0; k < kPack<T>; ++k) {
      const A dh = d.o.v[k], h = tanh(d.xhat.v[k] * w.v[k] + b.v[k]);
      d.o.v[k] = dh * h, d.normed.v[k] *= dh * (1 - h * h);
    }
    return d;
  }

  // += dc, which a step before left
  __device__ void add_later(Wide<T>& d, int c) const {
    const Wide<T> later = this->load(dc, c);
#pragma unroll
    for (int k = 0; k < kPack<T>; ++k) d.v[k] += later.v[k];
  }

  template <typename Sum>
  __device__ void sum_cell(Sum& sum) {
#pragma unroll 1
    for (int c = 0; c < this->chunks; ++c) {
      OutputGrad<T> d = output_grad(c);
      if (carried) add_later(d.normed, c);
      const Wide<T> w = cell_weight(c);
#pragma unroll
      for (int k = 0; k < kPack<T>; ++k)
        cell_sums[0] += d.normed.v[k] * w.v[k] * d.xhat.v[k], cell_sums[1] += d.normed.v[k] * w.v[k];
      add_lines(this->tile, c, p.lstm.cell_partial, p.P, p.hidden, 0, d.normed, d.xhat);
    }
    sum(cell_sums);
    for (A& s : cell_sums) s /= A(p.hidden);
  }

  // what comes back to f c + i g
  __device__ Wide<T> cell_grad(int c, const OutputGrad<T>& d) const {
    Wide<T> dcell = d.normed;
    if (carried) add_later(dcell, c);
    if (!normed) return dcell;
    const Wide<T> w = cell_weight(c);
#pragma unroll
    for (int k = 0; k < kPack<T>; ++k)
      dcell.v[k] = cell_rstd * (dcell.v[k] * w.v[k] - cell_sums[1] - d.xhat.v[k] * cell_sums[0]);
    if (!carried) add_later(dcell, c);
    return dcell;
  }

  // body(gate, its dz) for each gate
  template <typename Body>
  __device__ void each_gate(int c, const Wide<T>& dcell, const Wide<T>& dout, Body body) const {
    const Wide<T> i = gate(0, c), f = gate(1, c), g = gate(2, c), o = gate(3, c);
    const Wide<T> before = this->load(p.lstm.previous_cells + this->at * p.hidden, c);
    for_gates<4>([&](auto gate) {
      const auto dz = [&](int k) {
        return lstm_gate_grad<gate>(i.v[k], f.v[k], g.v[k], o.v[k], before.v[k], dcell.v[k], dout.v[k]);
      };
      body(gate, Wide<T>::of(dz));
    });
  }
};

template <typename T, bool PACKED>
__global__ void __launch_bounds__(kCellThreads, kFewBlocks<!PACKED, 1>)
    layer_norm_lstm_backward_kernel(const LayerNormLstmBackward<T> p) {
  __shared__ acc_t<T> scratch[2][8][32];
  BlockSum<acc_t<T>, 8> sum{scratch};
  for (int64_t b = blockIdx.x; b < p.rows; b += p.P) {
    LstmRow<T, PACKED> row(p, b);
    if (row.normed) row.sum_cell(sum);
#pragma unroll 1
    for (int c = 0; c < row.chunks; ++c) {
      const OutputGrad<T> d = row.output_grad(c);
      const Wide<T> dcell = row.cell_grad(c, d);
      row.tile.store(row.dc, c, dcell);
      row.each_gate(c, dcell, d.o, [&](int g, const Wide<T>& dz) { row.add(g, c, dz); });
    }
    row.finish_sums(sum);
#pragma unroll 1
    for (int c = 0; c < row.chunks; ++c) {
      Wide<T> dcell = row.load(row.dc, c);
      row.each_gate(c, dcell, row.output_grad(c).o, [&](int g, const Wide<T>& dz) { row.store(g, c, dz, dz); });
      const Wide<T> f = row.gate(1, c);
#pragma unroll
      for (int k = 0; k < kPack<T>; ++k) dcell.v[k] *= f.v[k];
      row.tile.store(row.dc, c, dcell);
    }
  }
}

// ---- host ----

template <typename T>
void run_step(const LayerNormLstmBackward<T>& p, const Device& device) {
  if constexpr (kFast<T>)
    if (p.packed) return launch_layer_backward<T>(layer_norm_lstm_backward_kernel<T, true>, p, device);
  launch_layer_backward<T>(layer_norm_lstm_backward_kernel<T, false>, p, device);
}

}  // namespace normkernels::cuda
