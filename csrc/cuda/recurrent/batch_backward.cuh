// Backward of batch norm inside a recurrent cell: with dq, the gradient of q = xhat * weight + bias,
// da = rstd * weight * (dq - mean(dq) - xhat * mean(dq * xhat)) over the rows of a step; without training the means are
// left out.
#pragma once

#include "cuda/recurrent/batch_norm.cuh"

namespace normkernels::cuda {

// v: this thread's sums of dq * xhat of K gates, hidden apart, then of dq. Adds those of all threads to partial,
// (2, K hidden), where the steps before left theirs; then v are the means to subtract.
template <int K, typename A, int MOST>
__device__ void finish_units(BatchUnit<A, MOST>& batch, A (&v)[2 * K], A* partial, int64_t hidden, bool training) {
  batch.sum(v);
  const bool writes = partial != nullptr && batch.writes();
#pragma unroll
  for (int k = 0; k < 2 * K; ++k) {
    if (writes) partial[k * hidden + batch.unit] += v[k];
    v[k] = training ? v[k] / A(batch.count) : A(0);
  }
}

// This thread's unit in the step.
template <typename T, int GATES>
struct BatchBackward : BatchUnit<acc_t<T>, 2 * GATES> {
  using A = acc_t<T>;
  const BatchStepBackward<T, GATES>& p;
  A mean[GATES], rstd[GATES], weight[GATES];
  A sums[2 * GATES] = {};  // of dq * xhat by gate, then of dq; then what finish_units leaves

  __device__ BatchBackward(const BatchStepBackward<T, GATES>& p, BatchScratch<A, 2 * GATES>* scratch)
      : BatchUnit<A, 2 * GATES>(p.hidden, p.rows, scratch), p(p) {
    for_gates<GATES>([&](auto g) {
      mean[g] = p.mean[at(p.t, g)], rstd[g] = rsqrt(p.var[at(p.t, g)] + p.eps);
      weight[g] = load_value<T>(p.weight, g * p.hidden + this->unit, 0, 1);
    });
  }

  // in a table of GATES values a unit
  __device__ int64_t at(int64_t row, int g) const { return (row * GATES + g) * p.hidden + this->unit; }
  // in a table of one
  __device__ int64_t of_row(int64_t r) const { return (p.first + r) * p.hidden + this->unit; }
  __device__ int64_t of_state(int64_t r) const { return r * p.hidden + this->unit; }

  __device__ A xhat(int64_t r, int g) const { return (widen(p.a[at(p.first + r, g)]) - mean[g]) * rstd[g]; }

  // what comes back to h: from y and from the step after
  __device__ A load_dh(int64_t r) const { return widen(p.dy[of_row(r)]) + widen(p.dh[of_state(r)]); }

  __device__ void add(int64_t r, int g, A dq) { sums[g] += dq * xhat(r, g), sums[GATES + g] += dq; }

  __device__ void finish_sums() { finish_units<GATES>(*this, sums, p.partial, p.hidden, p.training); }

  // of gate g: what comes back to a, and to the input
  __device__ void store(int64_t r, int g, A dq) const {
    const A da = rstd[g] * weight[g] * (dq - sums[GATES + g] - xhat(r, g) * sums[g]);
    const int64_t to = at(p.first + r, g);
    (p.da == nullptr ? p.dinput : p.da)[to] = narrow<T>(da);
    if (p.da != nullptr) p.dinput[to] = narrow<T>(dq);
  }
};

}  // namespace normkernels::cuda
