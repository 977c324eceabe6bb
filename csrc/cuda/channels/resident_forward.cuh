// Forward of the channel family: one kernel where a block or a cluster holds a statistic, else the sweeps.
#pragma once

#include "cuda/channels/forward.cuh"
#include "cuda/channels/resident.cuh"

namespace normkernels::cuda {

// mean and squares <- those of all blocks of a cluster (Chan et al. 1979).
template <typename T>
__device__ void merge_parts(const Slice<T, true>& slice, acc_t<T>& mean, acc_t<T>& squares,
                            acc_t<T> (&parts)[kMostBlocks][2]) {
  using A = acc_t<T>;
  Cluster<true>::share({mean, squares}, parts);
  mean = squares = A(0);
  for (unsigned r = 0; r < slice.blocks; ++r) mean += parts[r][0] * (A(slice.part(r)) / A(slice.count));
  for (unsigned r = 0; r < slice.blocks; ++r)
    squares += parts[r][1] + A(slice.part(r)) * (parts[r][0] - mean) * (parts[r][0] - mean);
}

template <typename T, int FINISH, bool MANY, typename Params>
__global__ void __launch_bounds__(kForwardThreads) channels_resident_forward_kernel(const Params p) {
  if constexpr (MANY && !kClusters) return;
  using A = acc_t<T>;
  constexpr int V = kPack<T>;
  __shared__ A scratch[2][1][32], parts[kMostBlocks][2];
  Cluster<MANY>::begin();
  const Slice<T, MANY> slice(p.plan);
  Pack<T> x[kResidentPacks], skip[kResidentPacks];
  slice.load(p.x, x);
  const unsigned part = slice.part(slice.rank);
  const A first = widen(p.x[slice.base]), count = slice.count > 0 ? slice.count : 1;
  A mean[1] = {A(0)}, squares[1] = {A(0)};
  const auto add = [&](int c, Pack<T>& pack) {
    const Wide<T> values = widen<T>(pack);
#pragma unroll
    for (int k = 0; k < V; ++k)
      if (slice.holds(c)) mean[0] += values.v[k] - first;
  };
  for_chunks<true>(add, x);
  row_sum(mean, blockDim.x, scratch[0]);
  mean[0] /= A(part > 0 ? part : 1);
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
  if constexpr (MANY) merge_parts(slice, mean[0], squares[0], parts);
  const A var = squares[0] / count, rstd = rsqrt(var + p.eps);
  mean[0] += first;
  const auto corrected = p.correction(slice.statistic, mean[0], var);
  if (threadIdx.x == 0 && slice.live && slice.rank == 0) p.keep(slice.statistic, mean[0], var, corrected);
  slice.load(p.skip, skip);
  const auto write = [&](int c, Pack<T>& pack, Pack<T>& more) {
    const Wide<T> w = slice.parameter(p.affine.weight, c, 1), b = slice.parameter(p.affine.bias, c, 0);
    Wide<T> u = widen<T>(pack);
#pragma unroll
    for (int k = 0; k < V; ++k)
      u.v[k] = (u.v[k] - mean[0]) * (rstd * corrected.scale(w.v[k])) + corrected.shift(w.v[k], b.v[k]);
    complete<FINISH>(p.affine, u, widen<T>(more));
    slice.store(p.y, c, u);
  };
  for_chunks<FINISH == kPlain>(write, x, skip);
}

// ---- host ----

// FINISH and who holds a statistic are constants of the kernel.
template <typename T, bool MANY, typename Params>
auto resident_forward_kernel(const Params& p) {
  if constexpr (std::is_same_v<Params, ChannelsForward<T>>)
    if (p.gated) return channels_resident_forward_kernel<T, kGated, MANY, Params>;
  return p.affine.activation == Activation::kIdentity ? channels_resident_forward_kernel<T, kPlain, MANY, Params>
                                                      : channels_resident_forward_kernel<T, kActivated, MANY, Params>;
}

// Whether a block or a cluster holds a statistic; then it is done. Params: a ChannelsForward<T>
template <typename T, typename Params>
bool resident_channels_forward(const Params& p, const Device& device) {
  if constexpr (kFast<T>) {
    const unsigned blocks = holders<T>(p.plan, kForwardThreads);
    if (blocks == 0) return false;
    const auto kernel = blocks > 1 ? resident_forward_kernel<T, true>(p) : resident_forward_kernel<T, false>(p);
    if (blocks > 1 && !has_clusters(kernel, device)) return false;
    launch_resident(kernel, p, kPack<T>, blocks, device);
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
