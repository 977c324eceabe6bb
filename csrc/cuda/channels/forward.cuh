// Forward of the channel family: moments of x, then u = (x - mean) * rstd * w + b and y = act(u + skip) or u *
// act(gate).
#pragma once

#include "cuda/channels/finish.cuh"
#include "cuda/channels/walk.cuh"

namespace normkernels::cuda {

// What a normaliser makes of the affine of xhat, given its statistic: nothing.
struct AsGiven {
  template <typename A>
  __device__ A scale(A w) const {
    return w;
  }
  template <typename A>
  __device__ A shift(A, A b) const {
    return b;
  }
};

template <typename T>
struct ChannelsForward {
  Plan plan;
  const T *x, *skip;
  Affine<T> affine;
  acc_t<T>*mean, *var;  // (B, G), those of x or given
  acc_t<T> eps;
  bool gated;  // the activation is of a gate, which is in skip's place
  T* y;
  acc_t<T>* table;  // of each part: mean less the first value, sum of (x - mean)^2

  __device__ AsGiven correction(int64_t, acc_t<T>, acc_t<T>) const { return {}; }
  __device__ void keep(int64_t statistic, acc_t<T> mean_of, acc_t<T> var_of, AsGiven) const {
    mean[statistic] = mean_of, var[statistic] = var_of;
  }
};

// Welford over this thread's steps, then a merge over threads in two passes. All of it, and the table, is about the
// first value of the statistic, so that a large mean costs no digits of the variance.
template <typename T, bool LAST, bool PACKED>
__global__ void __launch_bounds__(kChannelThreads, PACKED ? 2 : 1) channels_moments_kernel(const ChannelsForward<T> p) {
  using A = acc_t<T>;
  constexpr int V = kPack<T>;
  const Walk<T, LAST, PACKED> walk(p.plan, blockIdx.x);
  const auto first = [&](int64_t c) { return widen(p.x[p.plan.first(walk.batch(), walk.group(c))]); };
  const Wide<T> about = walk.by_channel(first);
  Wide<T> mean{}, squares{};
  walk.template sweep<PACKED>({p.x}, [&](int i, const Pack<T>(&packs)[1]) {
    const Wide<T> x = widen<T>(packs[0]);
    const A share = reciprocal(A(i + 1));
#pragma unroll
    for (int k = 0; k < V; ++k) {
      const A value = x.v[k] - about.v[k], delta = value - mean.v[k];
      if (!walk.holds(i, k)) continue;
      mean.v[k] += delta * share;
      squares.v[k] += delta * (value - mean.v[k]);
    }
  });
  const A count = p.plan.positions(walk.part);
  const Wide<T> all = sum_threads<0>(walk, Wide<T>::of([&](int k) { return mean.v[k] * (walk.count(k) / count); }));
  const auto from_all = [&](int k) {
    return squares.v[k] + walk.count(k) * (mean.v[k] - all.v[k]) * (mean.v[k] - all.v[k]);
  };
  squares = sum_threads<1>(walk, Wide<T>::of(from_all));
  walk.record(p.table, all);
  walk.record(p.table + p.plan.rows() * p.plan.C, squares);
}

// mean and var of every statistic from the table (Chan et al. 1979).
template <typename T>
__global__ void __launch_bounds__(kChannelThreads) channels_statistics_kernel(const ChannelsForward<T> p) {
  using A = acc_t<T>;
  __shared__ A scratch[2][1][32];
  const Merge merge(p.plan);
  const A *means = p.table, *squares = p.table + p.plan.rows() * p.plan.C;
  const A about = widen(p.x[p.plan.first(merge.statistic / p.plan.G, merge.statistic % p.plan.G)]);
  const A total = A(p.plan.images() * p.plan.channels()) * A(p.plan.S);
  A mean[1] = {A(0)}, sum[1] = {A(0)};
  merge.each(p.plan,
             [&](int64_t, unsigned part, int64_t at) { mean[0] += means[at] * (A(p.plan.positions(part)) / total); });
  row_sum(mean, blockDim.x, scratch[0]);
  merge.each(p.plan, [&](int64_t, unsigned part, int64_t at) {
    const A off = means[at] - mean[0];
    sum[0] += squares[at] + A(p.plan.positions(part)) * off * off;
  });
  row_sum(sum, blockDim.x, scratch[1]);
  if (threadIdx.x != 0 || !merge.live) return;
  p.mean[merge.statistic] = about + mean[0];
  p.var[merge.statistic] = sum[0] / total;
}

// The last part first: it was read last, so it may still be in the cache.
template <typename T, bool LAST, bool PACKED, int FINISH>
__global__ void __launch_bounds__(kChannelThreads) channels_apply_kernel(const ChannelsForward<T> p) {
  constexpr int V = kPack<T>;
  const Walk<T, LAST, PACKED> walk(p.plan, int64_t(gridDim.x) - 1 - blockIdx.x);
  const Wide<T> mean = walk.statistic(p.mean), shift = walk.bias(p.affine);
  Wide<T> scale = walk.weight(p.affine);
  const Wide<T> var = walk.statistic(p.var);
#pragma unroll
  for (int k = 0; k < V; ++k) scale.v[k] *= rsqrt(var.v[k] + p.eps);
  walk.template sweep<FINISH == kPlain>({p.x, p.skip}, [&](int i, const Pack<T>(&packs)[2]) {
    const Wide<T> x = widen<T>(packs[0]);
    Wide<T> u = Wide<T>::of([&](int k) { return (x.v[k] - mean.v[k]) * scale.v[k] + shift.v[k]; });
    complete<FINISH>(p.affine, u, widen<T>(packs[1]));
    walk.store(p.y, i, u);
  });
}

// workspace(n) gives room for n accumulators
template <typename T, typename Workspace>
void channels_moments(ChannelsForward<T> p, const Device& device, Workspace workspace) {
  p.table = workspace(2 * p.plan.rows() * p.plan.C);
  with_layout<T>(p.plan, Activation::kIdentity, [&](auto last, auto packed, auto) {
    launch_sweep<T>(channels_moments_kernel<T, last, packed>, p, device);
  });
  launch_rule(channels_statistics_kernel<T>, p, device);
}

template <typename T>
void channels_apply(const ChannelsForward<T>& p, const Device& device) {
  with_finish<T>(p.plan, p.affine.activation, p.gated, [&](auto last, auto packed, auto finish) {
    launch_sweep<T>(channels_apply_kernel<T, last, packed, finish>, p, device);
  });
}

}  // namespace normkernels::cuda
