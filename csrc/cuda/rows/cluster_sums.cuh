// Sums and moments of what a cluster holds, from those of its blocks; in the same order in each.
#pragma once

#include "cuda/base/cluster.cuh"
#include "cuda/rows/moments.cuh"

namespace normkernels::cuda {

// v <- its sum over the blocks, through `parts`, where each of eight lanes has a block's.
template <int K>
__device__ void sum_blocks(float (&v)[K], float (&parts)[kMostBlocks][K]) {
  Cluster<true>::share(v, parts);
  const unsigned r = threadIdx.x % kMostBlocks;
#pragma unroll
  for (int k = 0; k < K; ++k) v[k] = r < Cluster<true>::blocks() ? parts[r][k] : 0;
  row_sum(v, kMostBlocks, static_cast<float (*)[32]>(nullptr));
}

// Chan et al. 1979. Of N values the first block has `room`, the next as many, and so on.
template <bool CENTER>
__device__ Moments<float> merge_blocks(const Moments<float>& own, int N, int room) {
  __shared__ float parts[kMostBlocks][2];
  Cluster<true>::begun();
  Cluster<true>::share({own.mean, own.squares}, parts);
  const unsigned r = threadIdx.x % kMostBlocks;  // each of eight lanes has a block's
  const bool there = r < Cluster<true>::blocks();
  const int left = N - int(r) * room;
  const float count = left < 0 ? 0 : left < room ? left : room, mean_of = there ? parts[r][0] : 0;
  float mean[1] = {mean_of * count}, squares[1] = {there ? parts[r][1] : 0};
  if constexpr (CENTER) {
    row_sum(mean, kMostBlocks, static_cast<float (*)[32]>(nullptr));
    mean[0] /= float(N > 0 ? N : 1);
    squares[0] += count * (mean_of - mean[0]) * (mean_of - mean[0]);
  }
  row_sum(squares, kMostBlocks, static_cast<float (*)[32]>(nullptr));
  return {mean[0], squares[0]};
}

}  // namespace normkernels::cuda
