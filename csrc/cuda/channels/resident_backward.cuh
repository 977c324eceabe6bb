// Backward of the channel family: one kernel where a block holds a statistic (and line_sums, of many batches), else the
// sweeps.
#pragma once

#include "cuda/channels/merged_backward.cuh"
#include "cuda/channels/resident.cuh"

namespace normkernels::cuda {

// Sums of du and of du * xhat by pack, or by thread where a statistic has one channel.
template <typename T>
using Shares = acc_t<T>[2][kBackwardThreads * kResidentPacks];

// For each channel of the block's statistics, a warp each: its sums go to the table, those of a single batch to dweight
// and dbias, and times w to its first share.
template <typename T>
__device__ void sum_shares(const ChannelsBackward<T>& p, Shares<T>& shares, int per_channel) {
  using A = acc_t<T>;
  const int D = p.plan.channels(), all = blockDim.y * D, warps = blockDim.x * blockDim.y / 32;
  const int thread = threadIdx.y * blockDim.x + threadIdx.x;
  for (int first = 0; first < all; first += warps) {
    const int i = first + thread / 32, start = i / D * blockDim.x * kResidentPacks + i % D * per_channel;
    const int64_t statistic = int64_t(blockIdx.x) * blockDim.y + i / D;
    const bool live = i < all && statistic < p.plan.B * p.plan.G;
    A sum[2] = {A(0), A(0)};
    for (int j = thread % 32; j < per_channel && live; j += 32)
      sum[0] += shares[0][start + j], sum[1] += shares[1][start + j];
    row_sum(sum, 32, static_cast<A(*)[32]>(nullptr));
    if (thread % 32 != 0 || !live) continue;
    const int64_t channel = statistic % p.plan.G * D + i % D;
    const A w = load_value<T>(p.affine.weight, channel, 0, 1);
    shares[0][start] = sum[0] * w, shares[1][start] = sum[1] * w;
    if (p.plan.B == 1) p.sums.write(channel, 0, sum[1]), p.sums.write(channel, 1, sum[0]);
    if (p.table == nullptr) continue;
    A* line = p.table + statistic / p.plan.G * p.plan.C + channel;
    line[0] = sum[1], line[p.plan.B * p.plan.C] = sum[0];
  }
}

template <typename T, int FINISH>
__global__ void __launch_bounds__(kBackwardThreads, 1) channels_resident_backward_kernel(const ChannelsBackward<T> p) {
  using A = acc_t<T>;
  constexpr int V = kPack<T>;
  __shared__ A scratch[2][32];
  __shared__ Shares<T> shares;
  const Slice<T> slice(p.plan);
  const A mean = p.mean[slice.statistic], rstd = rsqrt(p.var[slice.statistic] + p.eps);
  Pack<T> x[kResidentPacks], dy[kResidentPacks], skip[kResidentPacks];
  slice.load(p.x, x), slice.load(p.dy, dy), slice.load(FINISH != kPlain ? p.skip : nullptr, skip);
  const auto weight = [&](int c) { return load_value<T>(p.affine.weight, slice.channel(c), 0, 1); };
  // body(c, xhat, du, dskip) for the packs that exist; wanted: whether dskip is
  const auto each = [&](bool wanted, auto body) {
    const auto one = [&](int c, Pack<T>& x_pack, Pack<T>& dy_pack, Pack<T>& skip_pack) {
      if (!slice.holds(c)) return;
      Wide<T> xhat = widen<T>(x_pack), du = widen<T>(dy_pack);
#pragma unroll
      for (int k = 0; k < V; ++k) xhat.v[k] = (xhat.v[k] - mean) * rstd;
      if constexpr (FINISH != kPlain) {
        const A w = weight(c), b = load_value<T>(p.affine.bias, slice.channel(c), 0, 0);
        Wide<T> u = Wide<T>::of([&](int k) { return xhat.v[k] * w + b; });
        through<FINISH>(p.affine, u, widen<T>(skip_pack), du, wanted);
        body(c, xhat, du, FINISH == kGated ? u : du);
      } else {
        body(c, xhat, du, du);
      }
    };
    for_chunks<FINISH == kPlain>(one, x, dy, skip);
  };
  const int first = threadIdx.y * blockDim.x * kResidentPacks, D = p.plan.channels();
  const int per_channel = D == 1 ? blockDim.x : slice.S / V;
  A own[2] = {A(0), A(0)}, means[2] = {A(0), A(0)};
  each(false, [&](int c, const Wide<T>& xhat, const Wide<T>& du, const Wide<T>&) {
    A sum[2] = {A(0), A(0)};
#pragma unroll
    for (int k = 0; k < V; ++k) sum[0] += du.v[k], sum[1] += du.v[k] * xhat.v[k];
    for (int t = 0; t < 2; ++t) {
      own[t] += sum[t];
      if (D > 1) shares[t][first + c * blockDim.x + threadIdx.x] = sum[t];
    }
  });
  if (D == 1) shares[0][first + threadIdx.x] = own[0], shares[1][first + threadIdx.x] = own[1];
  __syncthreads();
  sum_shares(p, shares, per_channel);
  __syncthreads();
  for (int i = threadIdx.x; i < D && slice.live; i += blockDim.x)
    for (int t = 0; t < 2; ++t) means[t] += shares[t][first + i * per_channel];
  row_sum(means, blockDim.x, scratch);
  for (A& mean_of : means) mean_of /= A(slice.count > 0 ? slice.count : 1);
  keep_packed<T>(x);
  keep_packed<T>(dy);
  each(p.dskip != nullptr, [&](int c, const Wide<T>& xhat, const Wide<T>& du, const Wide<T>& dskip) {
    const A w = weight(c);
    if (p.dskip != nullptr) slice.store(p.dskip, c, dskip);
    slice.store(p.dx, c, Wide<T>::of([&](int k) { return rstd * (du.v[k] * w - means[0] - xhat.v[k] * means[1]); }));
  });
}

// workspace(n) gives room for n accumulators
template <typename T, typename Workspace>
void channels_backward(ChannelsBackward<T> p, bool training, const Device& device, Workspace workspace) {
  if constexpr (kFast<T>) {
    if (training && p.plan.packed && fits_block<T>(p.plan, kBackwardThreads)) {
      const bool identity = p.affine.activation == Activation::kIdentity;
      const bool many = p.plan.B > 1 && wanted(p.sums);
      if (many) p.sums.partial = p.table = workspace(2 * p.plan.B * p.plan.C), p.sums.P = p.plan.B;
      const auto kernel = p.gated    ? channels_resident_backward_kernel<T, kGated>
                          : identity ? channels_resident_backward_kernel<T, kPlain>
                                     : channels_resident_backward_kernel<T, kActivated>;
      launch_resident(kernel, p, kPack<T>, device);
      if (many) line_sums(p.sums, device);
      return;
    }
  }
  const Plan narrow = shared_out<T>(p.plan);
  if (training && merges<T>(narrow)) {
    p.plan = narrow;
    return merged_channels_backward(p, device, workspace);
  }
  swept_channels_backward(p, training, device, workspace);
}

}  // namespace normkernels::cuda
