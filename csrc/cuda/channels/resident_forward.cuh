// Forward of the channel family: one kernel where a block or a cluster holds a statistic, else the sweeps.
#pragma once

#include "cuda/channels/forward.cuh"
#include "cuda/channels/resident.cuh"
#include "cuda/rows/cluster_sums.cuh"

namespace normkernels::cuda {

template <typename T, int FINISH, bool ONE, bool MANY, typename Params>
__global__ void __launch_bounds__(kForwardThreads, kFewBlocks<FINISH != kPlain, 1>)
    channels_resident_forward_kernel(const Params p) {
  if constexpr (MANY && !kClusters) return;
  using A = acc_t<T>;
  constexpr int V = kPack<T>;
  __shared__ A scratch[2][1][32];
  Cluster<MANY>::begin();
  Slice<T, ONE, MANY> slice(p.plan);
  Pack<T> x[kResidentPacks], skip[kResidentPacks];
  slice.load(p.x, x);
  const A first = widen(p.x[int64_t(slice.start) * V]), part = slice.part(), count = slice.count > 0 ? slice.count : 1;
  A mean[1] = {A(0)}, squares[1] = {A(0)};
  const auto add = [&](int c, Pack<T>& pack) {
    const Wide<T> values = widen<T>(pack);
#pragma unroll
    for (int k = 0; k < V; ++k)
      if (slice.holds(c)) mean[0] += values.v[k] - first;
  };
  for_chunks<true>(add, x);
  row_sum(mean, blockDim.x, scratch[0]);
  mean[0] /= part;
  keep_packed<T>(x);
  const auto add_square = [&](int c, Pack<T>& pack) {
    const Wide<T> values = widen<T>(pack);
#pragma unroll
    for (int k = 0; k < V; ++k)
      if (slice.holds(c)) squares[0] += (values.v[k] - first - mean[0]) * (values.v[k] - first - mean[0]);
  };
  for_chunks<true>(add_square, x);
  row_sum(squares, blockDim.x, scratch[1]);
  keep_packed<T>(x);
  if constexpr (MANY) {
    const auto all = merge_blocks<true>({mean[0], squares[0]}, slice.count, slice.room() * V);
    mean[0] = all.mean, squares[0] = all.squares;
  }
  const A var = squares[0] / count, rstd = rsqrt(var + p.eps);
  mean[0] += first;
  const auto corrected = p.correction(slice.statistic, mean[0], var);
  if (threadIdx.x == 0 && slice.live && slice.rank == 0) p.keep(slice.statistic, mean[0], var, corrected);
  slice.load(p.skip, skip);
  const Along<T, ONE> weight(p.affine.weight, slice, 1), bias(p.affine.bias, slice, 0);
  const auto write = [&](int c, Pack<T>& pack, Pack<T>& more, unsigned at) {
    const Wide<T> w = weight.all(slice, c), b = bias.all(slice, c);
    Wide<T> u = widen<T>(pack);
#pragma unroll
    for (int k = 0; k < V; ++k)
      u.v[k] = (u.v[k] - mean[0]) * (rstd * corrected.scale(w.v[k])) + corrected.shift(w.v[k], b.v[k]);
    complete<FINISH>(p.affine, u, widen<T>(more));
    slice.store(p.y, c, at, u);
  };
  for_chunks<FINISH == kPlain>(write, x, skip, slice.at);
}

// ---- host ----

// FINISH, and what holds a statistic of how many channels, are constants of the kernel.
template <typename T, bool ONE, bool MANY, typename Params>
auto resident_forward_kernel(const Params& p) {
  if constexpr (std::is_same_v<Params, ChannelsForward<T>>)
    if (p.gated) return channels_resident_forward_kernel<T, kGated, ONE, MANY, Params>;
  return p.affine.activation == Activation::kIdentity
             ? channels_resident_forward_kernel<T, kPlain, ONE, MANY, Params>
             : channels_resident_forward_kernel<T, kActivated, ONE, MANY, Params>;
}

// Whether a block or a cluster holds a statistic; then it is done. Params: a ChannelsForward<T>
template <typename T, typename Params>
bool resident_channels_forward(const Params& p, const Device& device) {
  if constexpr (kFast<T>) {
    const auto kernel = resident_forward_kernel<T, true, true>(p);
    const auto clusters = [&](unsigned blocks) { return resident_clusters(kernel, blocks, kForwardThreads, 0) > 0; };
    const unsigned blocks = holders<T>(p.plan, kForwardThreads, clusters);
    if (blocks == 0) return false;
    with_holders(p.plan, blocks, [&](auto one, auto many) {
      launch_resident(resident_forward_kernel<T, one, many>(p), p, kPack<T>, blocks, device);
    });
    return true;
  }
  return false;
}

template <typename T, typename Workspace>
void channels_forward(const ChannelsForward<T>& p, const Device& device, Workspace workspace) {
  if (resident_channels_forward<T>(p, device)) return;
  channels_moments(p, device, workspace);
  channels_apply(p, device);
}

}  // namespace normkernels::cuda
