// Backward of the channel family: one kernel where a block or a cluster holds a statistic (and line_sums, where several
// blocks have sums of a channel), else the sweeps.
#pragma once

#include "cuda/channels/merged_backward.cuh"
#include "cuda/channels/resident.cuh"

namespace normkernels::cuda {

// Sums of du and of du * xhat by pack, of statistics that are several channels'.
template <typename T>
using Shares = acc_t<T>[2][kBackwardThreads * kResidentPacks];

// Where the packs of a statistic's channel i lie in the block: none of them does where start is not below end.
struct Stretch {
  int start, end;

  template <typename T, bool MANY>
  __device__ Stretch(const Slice<T, false, MANY>& slice, int i) {
    const int packs = slice.S.by / kPack<T>, room = slice.room(), from = i * packs - int(slice.rank) * room;
    start = from > 0 ? from : 0, end = from + packs < room ? from + packs : room;
  }
};

// The sums of a channel: to dweight and dbias or, where another block has such of it, to a row of the table.
template <typename T>
__device__ void keep_sums(const ChannelsBackward<T>& p, int64_t row, int64_t channel, const acc_t<T> (&sum)[2]) {
  if (p.table == nullptr) return p.sums.write(channel, 0, sum[1]), p.sums.write(channel, 1, sum[0]);
  acc_t<T>* line = p.table + row * p.plan.C + channel;
  line[0] = sum[1], line[p.sums.P * p.plan.C] = sum[0];
}

// For each channel of the block's statistics, a warp each: its sums are kept and, times w, go to its first share.
template <typename T, bool MANY>
__device__ void sum_shares(const ChannelsBackward<T>& p, const Slice<T, false, MANY>& slice, Shares<T>& shares) {
  using A = acc_t<T>;
  const int D = p.plan.channels(), all = blockDim.y * D, warps = blockDim.x * blockDim.y / 32;
  const int thread = threadIdx.y * blockDim.x + threadIdx.x;
  for (int first = 0; first < all; first += warps) {
    const int i = first + thread / 32, line = i / D * slice.room();
    const Stretch at(slice, i % D);
    const unsigned statistic = MANY ? slice.statistic : blockIdx.x * blockDim.y + i / D, G = p.plan.G;
    const bool live = i < all && statistic < unsigned(p.plan.B) * G;
    A sum[2] = {A(0), A(0)};
    for (int j = at.start + thread % 32; j < at.end && live; j += 32)
      sum[0] += shares[0][line + j], sum[1] += shares[1][line + j];
    row_sum(sum, 32, static_cast<A(*)[32]>(nullptr));
    if (thread % 32 != 0 || !live) continue;
    const int64_t channel = statistic % G * D + i % D;
    keep_sums(p, statistic / G * slice.blocks + slice.rank, channel, sum);
    if (at.start >= at.end) continue;
    const A w = load_value<T>(p.affine.weight, channel, 0, 1);
    for (int t = 0; t < 2; ++t) shares[t][line + at.start] = sum[t] * w;
  }
}

template <typename T, int FINISH, bool ONE, bool MANY>
__global__ void __launch_bounds__(kBackwardThreads, 1) channels_resident_backward_kernel(const ChannelsBackward<T> p) {
  if constexpr (MANY && !kClusters) return;
  using A = acc_t<T>;
  constexpr int V = kPack<T>;
  __shared__ A scratch[2][32], parts[kMostBlocks][2];
  Cluster<MANY>::begin();
  Slice<T, ONE, MANY> slice(p.plan);
  const A mean = p.mean[slice.statistic], rstd = rsqrt(p.var[slice.statistic] + p.eps);
  Pack<T> x[kResidentPacks], dy[kResidentPacks], skip[kResidentPacks];
  slice.load(p.x, x), slice.load(p.dy, dy), slice.load(FINISH != kPlain ? p.skip : nullptr, skip);
  const Along<T, ONE> weight(p.affine.weight, slice, 1), bias(p.affine.bias, slice, 0);
  // body(c, at, x - mean, du, dskip) for the packs that exist; wanted: whether dskip is
  const auto each = [&](bool wanted, auto body) {
    const auto one = [&](int c, Pack<T>& x_pack, Pack<T>& dy_pack, Pack<T>& skip_pack, unsigned at) {
      if (!slice.holds(c)) return;
      Wide<T> off = widen<T>(x_pack), du = widen<T>(dy_pack);
#pragma unroll
      for (int k = 0; k < V; ++k) off.v[k] -= mean;
      if constexpr (FINISH != kPlain) {
        const A scale = weight.first(slice, c) * rstd, b = bias.first(slice, c);
        Wide<T> u = Wide<T>::of([&](int k) { return off.v[k] * scale + b; });
        through<FINISH>(p.affine, u, widen<T>(skip_pack), du, wanted);
        body(c, at, off, du, FINISH == kGated ? u : du);
      } else {
        body(c, at, off, du, du);
      }
    };
    for_chunks<FINISH == kPlain>(one, x, dy, skip, slice.at);
  };
  A total[2] = {A(0), A(0)};  // of du and of du * xhat; of several channels, each times its weight
  const auto sums = [&](auto each_pack) {
    each(false, [&](int c, unsigned, const Wide<T>& off, const Wide<T>& du, const Wide<T>&) {
      A sum[2] = {A(0), A(0)};
#pragma unroll
      for (int k = 0; k < V; ++k) sum[0] += du.v[k], sum[1] += du.v[k] * off.v[k];
      each_pack(c, sum[0], sum[1] * rstd);
    });
  };
  if constexpr (ONE) {
    sums([&](int, A sum, A sum_xhat) { total[0] += sum, total[1] += sum_xhat; });
  } else {
    __shared__ Shares<T> shares;
    const int line = threadIdx.y * slice.room(), D = p.plan.channels();
    sums([&](int c, A sum, A sum_xhat) {
      const int at = line + c * blockDim.x + threadIdx.x;
      shares[0][at] = sum, shares[1][at] = sum_xhat;
    });
    __syncthreads();
    sum_shares(p, slice, shares);
    __syncthreads();
    for (int i = threadIdx.x; i < D && slice.live; i += blockDim.x)
      if (const Stretch at(slice, i); at.start < at.end)
        for (int t = 0; t < 2; ++t) total[t] += shares[t][line + at.start];
  }
  row_sum(total, blockDim.x, scratch);
  if constexpr (MANY) {
    Cluster<true>::begun();
    sum_blocks(total, parts);
  }
  if constexpr (ONE) {
    if (threadIdx.x == 0 && slice.live && slice.rank == 0) keep_sums(p, slice.batch, slice.first_channel, total);
    for (A& of : total) of *= weight.one;
  }
  const A share = rstd / A(slice.count > 0 ? slice.count : 1), offset = total[0] * share,
          slope = total[1] * share * rstd;
  keep_packed<T>(x);
  keep_packed<T>(dy);
  each(p.dskip != nullptr, [&](int c, unsigned at, const Wide<T>& off, const Wide<T>& du, const Wide<T>& dskip) {
    const A scale = weight.first(slice, c) * rstd;
    if (p.dskip != nullptr) slice.store(p.dskip, c, at, dskip);
    slice.store(p.dx, c, at, Wide<T>::of([&](int k) { return du.v[k] * scale - off.v[k] * slope - offset; }));
  });
}

// ---- host ----

// FINISH, and what holds a statistic of how many channels, are constants of the kernel.
template <typename T, bool ONE, bool MANY>
auto resident_backward_kernel(const ChannelsBackward<T>& p) {
  if (p.gated) return channels_resident_backward_kernel<T, kGated, ONE, MANY>;
  return p.affine.activation == Activation::kIdentity ? channels_resident_backward_kernel<T, kPlain, ONE, MANY>
                                                      : channels_resident_backward_kernel<T, kActivated, ONE, MANY>;
}

// Whether a block or a cluster holds a statistic; then it is done. workspace(n) gives room for n accumulators.
template <typename T, typename Workspace>
bool resident_channels_backward(ChannelsBackward<T> p, const Device& device, Workspace workspace) {
  if constexpr (kFast<T>) {
    const auto kernel = resident_backward_kernel<T, true, true>(p);
    const auto clusters = [&](unsigned blocks) { return resident_clusters(kernel, blocks, kBackwardThreads, 0) > 0; };
    const unsigned blocks = p.plan.packed ? holders<T>(p.plan, kBackwardThreads, clusters) : 0;
    if (blocks == 0) return false;
    const int64_t rows = p.plan.B * (p.plan.channels() > 1 ? blocks : 1);  // of sums
    const bool apart = rows > 1 && wanted(p.sums);
    if (apart) p.sums.partial = p.table = workspace(2 * rows * p.plan.C), p.sums.P = rows;
    with_holders(p.plan, blocks, [&](auto one, auto many) {
      launch_resident(resident_backward_kernel<T, one, many>(p), p, kPack<T>, blocks, device);
    });
    if (apart) line_sums(p.sums, device);
    return true;
  }
  return false;
}

// workspace(n) gives room for n accumulators
template <typename T, typename Workspace>
void channels_backward(ChannelsBackward<T> p, bool training, const Device& device, Workspace workspace) {
  if (training && resident_channels_backward(p, device, workspace)) return;
  const Plan narrow = shared_out<T>(p.plan);
  if (training && merges<T>(narrow)) {
    p.plan = narrow;
    return merged_channels_backward(p, device, workspace);
  }
  swept_channels_backward(p, training, device, workspace);
}

}  // namespace normkernels::cuda
