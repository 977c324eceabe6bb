// Forward of layer norm inside a recurrent cell: statistics of a row's groups of gates, and the normalised gates.
#pragma once

#include "cuda/recurrent/layer_norm.cuh"

namespace normkernels::cuda {

template <typename T, int GATES>
struct LayerStepForward : StepForward<T> {
  acc_t<T>*mean, *rstd;  // (rows, groups)
  Groups<acc_t<T>, GATES> groups;
  bool packed;  // every pointer and H is a whole number of packs
};

// This block's row of the step.
template <typename T, int GATES, bool PACKED>
struct LayerForward : Units<T, PACKED> {
  using A = acc_t<T>;
  const LayerStepForward<T, GATES>& p;
  int64_t first, own;  // the row in buffers of all steps, and in those that may have one
  T* a;
  A mean[GATES] = {}, rstd[GATES] = {};  // of each gate's group

  template <typename Sum>
  __device__ LayerForward(const LayerStepForward<T, GATES>& p, Sum& sum)
      : Units<T, PACKED>(p.hidden),
        p(p),
        first(p.first + blockIdx.x),
        own(p.own + blockIdx.x),
        a(p.a + own * GATES * p.hidden) {
    measure(sum);
    if (threadIdx.x == 0) p.groups.store(p.mean, own, mean), p.groups.store(p.rstd, own, rstd);
  }

  // what is normalised, after it took a's place
  __device__ Wide<T> load_sum(int g, int c) const {
    Wide<T> x = this->load(a + g * p.hidden, c);
    if (p.separate) return x;
    const Wide<T> more = input(g, c);
#pragma unroll
    for (int k = 0; k < kPack<T>; ++k) x.v[k] += more.v[k];
    const Pack<T> rounded = narrow<T>(x);
    this->tile.store(a + g * p.hidden, c, rounded);
    return widen<T>(rounded);
  }

  template <typename Sum>
  __device__ void measure(Sum& sum) {
#pragma unroll 1
    for (int c = 0; c < this->chunks; ++c)
#pragma unroll
      for (int g = 0; g < GATES; ++g) mean[g] += sum_of<T>(load_sum(g, c));
    sum(mean);
    p.groups.mean(mean);
#pragma unroll 1
    for (int c = 0; c < this->chunks; ++c)
#pragma unroll
      for (int g = 0; g < GATES; ++g) rstd[g] += this->squares(this->load(a + g * p.hidden, c), c, mean[g]);
    sum(rstd);
    p.groups.mean(rstd);
#pragma unroll
    for (int g = 0; g < GATES; ++g) rstd[g] = rsqrt(rstd[g] + p.eps);
  }

  __device__ Wide<T> input(int g, int c) const { return this->load(p.input + (first * GATES + g) * p.hidden, c); }

  // xhat * weight + bias of gate g
  __device__ Wide<T> normed(int g, int c) const {
    const Wide<T> w = this->load(p.weight, 1, g * p.hidden, c), b = this->load(p.bias, 0, g * p.hidden, c);
    Wide<T> q = this->load_xhat(a + g * p.hidden, c, mean[g], rstd[g]);
#pragma unroll
    for (int k = 0; k < kPack<T>; ++k) q.v[k] = q.v[k] * w.v[k] + b.v[k];
    return q;
  }

  // what gate g is the sigmoid or tanh of
  __device__ Wide<T> term(int g, int c) const {
    Wide<T> z = normed(g, c);
    if (!p.separate) return z;
    const Wide<T> more = input(g, c);
#pragma unroll
    for (int k = 0; k < kPack<T>; ++k) z.v[k] += more.v[k];
    return z;
  }

  // h is y, and the state of this row
  __device__ void store_h(int c, const Wide<T>& h) const {
    const Pack<T> rounded = narrow<T>(h);
    this->tile.store(p.y + first * p.hidden, c, rounded);
    this->tile.store(p.h + blockIdx.x * p.hidden, c, rounded);
  }
};

}  // namespace normkernels::cuda
