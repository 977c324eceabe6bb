// Forward of batch norm inside a recurrent cell: statistics of a unit's gates over the rows of a step, and the
// normalised gates.
#pragma once

#include "cuda/recurrent/batch_norm.cuh"

namespace normkernels::cuda {

// This thread's unit in the step.
template <typename T, int GATES>
struct BatchForward : BatchUnit<acc_t<T>, GATES> {
  using A = acc_t<T>;
  const BatchStepForward<T, GATES>& p;
  A mean[GATES] = {}, rstd[GATES] = {}, weight[GATES], bias[GATES];

  __device__ BatchForward(const BatchStepForward<T, GATES>& p, BatchScratch<A, GATES>* scratch)
      : BatchUnit<A, GATES>(p.hidden, p.rows, scratch), p(p) {
    for_gates<GATES>([&](auto g) {
      weight[g] = load_value<T>(p.weight, g * p.hidden + this->unit, 0, 1);
      bias[g] = load_value<T>(p.bias, g * p.hidden + this->unit, 0, 0);
    });
    if (!p.separate) add_input();
    if (p.training) measure_gates();
    for_gates<GATES>([&](auto g) {
      if (!p.training) mean[g] = p.mean[at(p.t, g)], rstd[g] = p.var[at(p.t, g)];
      rstd[g] = rsqrt(rstd[g] + p.eps);
    });
  }

  // in a table of GATES values a unit
  __device__ int64_t at(int64_t row, int g) const { return (row * GATES + g) * p.hidden + this->unit; }
  __device__ A input(int64_t r, int g) const { return widen(p.input[at(p.first + r, g)]); }

  __device__ void add_input() const {
    this->each_row([&](int64_t r) {
      for_gates<GATES>([&](auto g) {
        T* a = p.a + at(p.own + r, g);
        *a = narrow<T>(widen(*a) + input(r, g));
      });
    });
  }

  __device__ void measure_gates() {
    measure(*this, mean, rstd, [&](int64_t r, int g) { return widen(p.a[at(p.own + r, g)]); });
    if (!this->writes()) return;
    for_gates<GATES>([&](auto g) { p.mean[at(p.t, g)] = mean[g], p.var[at(p.t, g)] = rstd[g]; });
  }

  // what gate g is the sigmoid or tanh of
  __device__ A term(int64_t r, int g) const {
    const A z = (widen(p.a[at(p.own + r, g)]) - mean[g]) * rstd[g] * weight[g] + bias[g];
    return p.separate ? z + input(r, g) : z;
  }

  // h is y, and the state of this row
  __device__ void store_h(int64_t r, A h) const {
    p.y[(p.first + r) * p.hidden + this->unit] = p.h[r * p.hidden + this->unit] = narrow<T>(h);
  }
};

}  // namespace normkernels::cuda
