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
  bool gated;        // the activation is of a gate, which is in skip's place, as dskip is its gradient
  LineSums<T> sums;  // where dweight and dbias go
};

inline constexpr int kSumRows = kChannelThreads / kSumUnits;  // threads of a channel that add up rows of the table

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

// The means of g and of g * xhat from the table, and in blocks of their own the sums of the parameters.
template <typename T>
struct ChannelMeans {
  Plan plan;
  Parameter weight;
  const acc_t<T>* table;
  acc_t<T>* means;  // (2, B, G)
  LineSums<T> sums;
  unsigned blocks;  // of the means
};

// Of kSumUnits channels dweight (which = 0) or dbias from all rows: kSumRows interleaved sums each, added in order.
template <typename T>
__device__ void sum_rows(const LineSums<T>& p, int64_t block, int which) {
  using A = acc_t<T>;
  __shared__ A sums[kSumRows][kSumUnits];
  const int thread = threadIdx.y * blockDim.x + threadIdx.x, unit = thread % kSumUnits, first = thread / kSumUnits;
  const int64_t channel = block * kSumUnits + unit;
  const A* partial = p.partial + which * p.P * p.N + channel;
  A sum = 0;
#pragma unroll 4
  for (int64_t row = first; row < p.P && channel < p.N; row += kSumRows) sum += partial[row * p.N];
  sums[first][unit] = sum;
  __syncthreads();
  if (first != 0 || channel >= p.N) return;
  for (int i = 1; i < kSumRows; ++i) sum += sums[i][unit];
  p.write(channel, which, sum);
}

template <typename T>
__global__ void __launch_bounds__(kChannelThreads) channels_means_kernel(const ChannelMeans<T> p) {
  using A = acc_t<T>;
  __shared__ A scratch[2][32];
  if (blockIdx.x >= p.blocks) {
    const unsigned block = blockIdx.x - p.blocks, columns = (p.sums.N + kSumUnits - 1) / kSumUnits;
    return sum_rows(p.sums, block % columns, block / columns);
  }
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

// dx = du * scale - (x - mean) * slope - offset, and dskip
template <typename T, bool LAST, bool PACKED, int FINISH>
__device__ void write_dx(const ChannelsBackward<T>& p, const Walk<T, LAST, PACKED>& walk,
                         const Normalised<T, LAST, PACKED, FINISH>& by, const Wide<T>& slope, const Wide<T>& offset) {
  by.sweep(p, walk, p.dskip != nullptr, [&](int i, const Wide<T>& x, const Wide<T>& du, const Wide<T>& dskip) {
    if (p.dskip != nullptr) walk.store(p.dskip, i, dskip);
    walk.store(p.dx, i, Wide<T>::of([&](int k) {
                 return du.v[k] * by.scale.v[k] - (x.v[k] - by.mean.v[k]) * slope.v[k] - offset.v[k];
               }));
  });
}

// The last part first: it may still be in the cache.
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
  write_dx(p, walk, by, slope, offset);
}

// The sums by part; workspace(n) gives room for n accumulators.
template <typename T, typename Workspace>
void channels_partial_sums(ChannelsBackward<T>& p, const Device& device, Workspace workspace) {
  p.sums.partial = p.table = workspace(2 * p.plan.rows() * p.plan.C);
  p.sums.P = p.plan.rows();
  with_finish<T>(p.plan, p.affine.activation, p.gated, [&](auto last, auto packed, auto finish) {
    launch_sweep<T>(channels_sums_kernel<T, last, packed, finish>, p, device);
  });
}

template <typename T, typename Workspace>
void channels_sums(ChannelsBackward<T>& p, const Device& device, Workspace workspace) {
  channels_partial_sums(p, device, workspace);
  line_sums(p.sums, device);
}

// The means of every statistic, and what of dweight and dbias is wanted.
template <typename T, typename Workspace>
void channels_means(ChannelsBackward<T>& p, const Device& device, Workspace workspace) {
  const int64_t statistics = p.plan.B * p.plan.G;
  const int threads = p.plan.images() * p.plan.parts * p.plan.channels() > 128 ? kChannelThreads : 32;  // of each
  const dim3 block(threads, kChannelThreads / threads);
  const unsigned means = ceil_div<int64_t>(statistics, block.y), columns = ceil_div<int64_t>(p.plan.C, kSumUnits);
  const unsigned tables = !wanted(p.sums) ? 0 : p.sums.dbias == nullptr ? 1 : 2;
  const ChannelMeans<T> rule{p.plan, p.affine.weight, p.table, workspace(2 * statistics), p.sums, means};
  launch(channels_means_kernel<T>, dim3(means + tables * columns), block, device, rule);
  p.mean_g = rule.means, p.mean_g_xhat = rule.means + statistics;
}

template <typename T>
void channels_dx(const ChannelsBackward<T>& p, const Device& device) {
  with_finish<T>(p.plan, p.affine.activation, p.gated, [&](auto last, auto packed, auto finish) {
    launch_sweep<T>(channels_dx_kernel<T, last, packed, finish>, p, device);
  });
}

template <typename T, typename Workspace>
void swept_channels_backward(ChannelsBackward<T> p, bool training, const Device& device, Workspace workspace) {
  if (training) {
    channels_partial_sums(p, device, workspace);
    channels_means(p, device, workspace);
  } else if (wanted(p.sums)) {
    channels_sums(p, device, workspace);
  }
  channels_dx(p, device);
}

}  // namespace normkernels::cuda
