// Backward of the channel family: dx = rstd * (g - mean(g) - xhat * mean(g * xhat)), g = du * w, du = dy * act'(u),
// with the means over a statistic; dweight and dbias are the sums of du * xhat and of du over images and positions.
// Where y = u * act(gate), du = dy * act(gate) and dgate = dy * u * act'(gate).
#pragma once

#include "cuda/channels/finish.cuh"
#include "cuda/channels/walk.cuh"

namespace normkernels::cuda {

template <typename T>
struct ChannelsBackward {
  Plan plan;
  const T *dy, *x, *skip;
  Affine<T> affine;
  const acc_t<T>*mean, *var;  // (B, G)
  acc_t<T> eps;
  T *dx, *dskip;
  acc_t<T>* table;                      // of each part: sums of du * xhat, and of du
  const acc_t<T>*mean_g, *mean_g_xhat;  // (B, G); null: mean and var are constants
  bool of_du;                           // those are means of du and of du * xhat
  bool gated;  // the activation is of a gate, which is in skip's place, as dskip is its gradient
};

// What a thread needs to know of its channels.
template <typename T, bool LAST, bool PACKED, int FINISH>
struct Normalised {
  Wide<T> mean, rstd, scale, shift;  // u = (x - mean) * scale + shift + skip, scale = rstd * w

  __device__ Normalised(const ChannelsBackward<T>& p, const Walk<T, LAST, PACKED>& walk)
      : mean(walk.statistic(p.mean)), rstd(walk.statistic(p.var)), scale(walk.weight(p.affine)) {
#pragma unroll
    for (int k = 0; k < kPack<T>; ++k) rstd.v[k] = rsqrt(rstd.v[k] + p.eps), scale.v[k] *= rstd.v[k];
    if constexpr (FINISH != kPlain) shift = walk.bias(p.affine);
  }
  // body(i, x, du, dskip) for every step; wanted: whether dskip is
  template <typename Body>
  __device__ void sweep(const ChannelsBackward<T>& p, const Walk<T, LAST, PACKED>& walk, bool wanted, Body body) const {
    if constexpr (FINISH != kPlain) {
      walk.template sweep<false>({p.dy, p.x, p.skip}, [&](int i, const Pack<T>(&packs)[3]) {
        const Wide<T> x = widen<T>(packs[1]);
        Wide<T> du = widen<T>(packs[0]);
        Wide<T> u = Wide<T>::of([&](int k) { return (x.v[k] - mean.v[k]) * scale.v[k] + shift.v[k]; });
        through<FINISH>(p.affine, u, widen<T>(packs[2]), du, wanted);
        body(i, x, du, FINISH == kGated ? u : du);
      });
    } else {
      walk.template sweep<true>({p.dy, p.x}, [&](int i, const Pack<T>(&packs)[2]) {
        const Wide<T> du = widen<T>(packs[0]);
        body(i, widen<T>(packs[1]), du, du);
      });
    }
  }
};

template <typename T, bool LAST, bool PACKED, int FINISH>
__global__ void __launch_bounds__(kChannelThreads, PACKED ? 2 : 1) channels_sums_kernel(const ChannelsBackward<T> p) {
  const Walk<T, LAST, PACKED> walk(p.plan, blockIdx.x);
  const Normalised<T, LAST, PACKED, FINISH> by(p, walk);
  Wide<T> sum{}, sum_xhat{};
  by.sweep(p, walk, false, [&](int i, const Wide<T>& x, const Wide<T>& du, const Wide<T>&) {
#pragma unroll
    for (int k = 0; k < kPack<T>; ++k) {
      if (!walk.holds(i, k)) continue;
      sum.v[k] += du.v[k];
      sum_xhat.v[k] += du.v[k] * (x.v[k] - by.mean.v[k]);
    }
  });
  sum_xhat = sum_threads<0>(walk, sum_xhat);
  walk.record(p.table, Wide<T>::of([&](int k) { return sum_xhat.v[k] * by.rstd.v[k]; }));
  walk.record(p.table + p.plan.rows() * p.plan.C, sum_threads<1>(walk, sum));
}

// The means of g and of g * xhat from the table.
template <typename T>
struct ChannelMeans {
  Plan plan;
  Parameter weight;
  const acc_t<T>* table;
  acc_t<T>* means;  // (2, B, G)
};

template <typename T>
__global__ void __launch_bounds__(kChannelThreads) channels_means_kernel(const ChannelMeans<T> p) {
  using A = acc_t<T>;
  __shared__ A scratch[2][32];
  const Merge merge(p.plan);
  const A *sum_xhat = p.table, *sum = p.table + p.plan.rows() * p.plan.C;
  A total[2] = {A(0), A(0)};
  merge.each(p.plan, [&](int64_t channel, unsigned, int64_t at) {
    const A w = load_value<T>(p.weight, channel, 0, 1);
    total[0] += w * sum[at];
    total[1] += w * sum_xhat[at];
  });
  row_sum(total, blockDim.x, scratch);
  if (threadIdx.x != 0 || !merge.live) return;
  const A count = A(p.plan.images() * p.plan.channels()) * A(p.plan.S);
  p.means[merge.statistic] = total[0] / count;
  p.means[p.plan.B * p.plan.G + merge.statistic] = total[1] / count;
}

// dx = du * scale - (x - mean) * slope - offset, the last part first: it may still be in the cache.
template <typename T, bool LAST, bool PACKED, int FINISH>
__global__ void __launch_bounds__(kChannelThreads, PACKED ? 2 : 1) channels_dx_kernel(const ChannelsBackward<T> p) {
  constexpr int V = kPack<T>;
  const Walk<T, LAST, PACKED> walk(p.plan, int64_t(gridDim.x) - 1 - blockIdx.x);
  const Normalised<T, LAST, PACKED, FINISH> by(p, walk);
  Wide<T> slope{}, offset{};
  if (p.mean_g != nullptr) {
    slope = walk.statistic(p.mean_g_xhat), offset = walk.statistic(p.mean_g);
#pragma unroll
    for (int k = 0; k < V; ++k) {
      const acc_t<T> scale = p.of_du ? by.scale.v[k] : by.rstd.v[k];
      slope.v[k] *= scale * by.rstd.v[k];
      offset.v[k] *= scale;
    }
  }
  by.sweep(p, walk, p.dskip != nullptr, [&](int i, const Wide<T>& x, const Wide<T>& du, const Wide<T>& dskip) {
    if (p.dskip != nullptr) walk.store(p.dskip, i, dskip);
    walk.store(p.dx, i, Wide<T>::of([&](int k) {
                 return du.v[k] * by.scale.v[k] - (x.v[k] - by.mean.v[k]) * slope.v[k] - offset.v[k];
               }));
  });
}

// The sums by part; workspace(n) gives room for n accumulators.
template <typename T, typename Workspace>
void channels_sums(ChannelsBackward<T>& p, LineSums<T> sums, const Device& device, Workspace workspace) {
  sums.partial = p.table = workspace(2 * p.plan.rows() * p.plan.C);
  sums.P = p.plan.rows();
  with_finish<T>(p.plan, p.affine.activation, p.gated, [&](auto last, auto packed, auto finish) {
    launch_sweep<T>(channels_sums_kernel<T, last, packed, finish>, p, device);
  });
  if (sums.dweight != nullptr || sums.dbias != nullptr) line_sums(sums, device);
}

template <typename T>
void channels_dx(const ChannelsBackward<T>& p, const Device& device) {
  with_finish<T>(p.plan, p.affine.activation, p.gated, [&](auto last, auto packed, auto finish) {
    launch_sweep<T>(channels_dx_kernel<T, last, packed, finish>, p, device);
  });
}

template <typename T, typename Workspace>
void swept_channels_backward(ChannelsBackward<T> p, bool training, const LineSums<T>& sums, const Device& device,
                             Workspace workspace) {
  if (training || sums.dweight != nullptr || sums.dbias != nullptr) channels_sums(p, sums, device, workspace);
  if (training) {
    const int64_t statistics = p.plan.B * p.plan.G;
    const ChannelMeans<T> rule{p.plan, p.affine.weight, p.table, workspace(2 * statistics)};
    launch_rule(channels_means_kernel<T>, rule, device);
    p.mean_g = rule.means, p.mean_g_xhat = rule.means + statistics;
  }
  channels_dx(p, device);
}

}  // namespace normkernels::cuda
