// Backward of layer norm inside a recurrent cell: with dq, the gradient of q = xhat * weight + bias, and g = dq *
// weight da = rstd * (g - mean(g) - xhat * mean(g * xhat)) over each group of gates.
#pragma once

#include "cuda/recurrent/layer_norm.cuh"

namespace normkernels::cuda {

template <typename T, int GATES>
struct LayerStepBackward : StepBackward<T> {
  const acc_t<T>*mean, *rstd;  // (total, groups)
  Groups<acc_t<T>, GATES> groups;
  bool packed;  // every pointer and H is a whole number of packs
};

// A block's sums over rows of dq * xhat and of dq, in its line of (2, P, N); a thread comes back to its own columns.
template <typename T, bool PACKED>
__device__ void add_lines(const Tile<T, PACKED>& tile, int c, acc_t<T>* partial, int64_t P, int64_t N, int64_t first,
                          const Wide<T>& dq, const Wide<T>& xhat) {
  if (partial == nullptr) return;
#pragma unroll
  for (int which = 0; which < 2; ++which) {
    acc_t<T>* line = partial + (which * P + blockIdx.x) * N + first;
    Wide<T> sums = tile.load(line, c);
#pragma unroll
    for (int k = 0; k < kPack<T>; ++k) sums.v[k] += which == 0 ? dq.v[k] * xhat.v[k] : dq.v[k];
    tile.store(line, c, sums);
  }
}

// One row of the step.
template <typename T, int GATES, bool PACKED>
struct LayerBackward : Units<T, PACKED> {
  using A = acc_t<T>;
  const LayerStepBackward<T, GATES>& p;
  int64_t row, at;             // of the state, and of the sequence
  A mean[GATES], rstd[GATES];  // of each gate's group
  A sums[2 * GATES] = {};      // of g * xhat by gate, then of g; then their means by group

  __device__ LayerBackward(const LayerStepBackward<T, GATES>& p, int64_t row)
      : Units<T, PACKED>(p.hidden), p(p), row(row), at(p.first + row) {
    p.groups.load(p.mean, at, mean);
    p.groups.load(p.rstd, at, rstd);
  }

  __device__ int64_t place(int g) const { return (at * GATES + g) * p.hidden; }
  __device__ Wide<T> xhat(int g, int c) const { return this->load_xhat(p.a + place(g), c, mean[g], rstd[g]); }

  // what comes back to h: from y and from the step after
  __device__ Wide<T> load_dh(int c) const {
    Wide<T> dh = this->load(p.dy + at * p.hidden, c);
    const Wide<T> later = this->load(p.dh + row * p.hidden, c);
#pragma unroll
    for (int k = 0; k < kPack<T>; ++k) dh.v[k] += later.v[k];
    return dh;
  }

  __device__ void add(int g, int c, const Wide<T>& dq) {
    const Wide<T> x = xhat(g, c), w = this->load(p.weight, 1, g * p.hidden, c);
#pragma unroll
    for (int k = 0; k < kPack<T>; ++k) sums[g] += dq.v[k] * w.v[k] * x.v[k], sums[GATES + g] += dq.v[k] * w.v[k];
  }

  template <typename Sum>
  __device__ void finish_sums(Sum& sum) {
    sum(sums);
    p.groups.mean(sums);
    p.groups.mean(sums + GATES);
  }

  // of gate g: what comes back to a, and to the input, of which dz does where it is normalised apart
  __device__ void store(int g, int c, const Wide<T>& dq, const Wide<T>& dz) const {
    const Wide<T> x = xhat(g, c), w = this->load(p.weight, 1, g * p.hidden, c);
    add_lines(this->tile, c, p.partial, p.P, GATES * p.hidden, g * p.hidden, dq, x);
    const auto da = [&](int k) { return rstd[g] * (dq.v[k] * w.v[k] - sums[GATES + g] - x.v[k] * sums[g]); };
    this->tile.store((p.da == nullptr ? p.dinput : p.da) + place(g), c, narrow<T>(Wide<T>::of(da)));
    if (p.da != nullptr) this->tile.store(p.dinput + place(g), c, narrow<T>(dz));
  }
};

// ---- host ----

// Lines that a batch of rows adds its sums to.
inline int64_t lines_of(int64_t batch) { return std::min<int64_t>(batch, kCellLines); }

template <typename T, typename Params>
void launch_layer_backward(void (*kernel)(Params), const Params& p, const Device& device) {
  launch_layer<T>(kernel, p, std::min(p.rows, p.P), device);
}

}  // namespace normkernels::cuda
