// Moments of what a cluster holds.
#pragma once

#include "cuda/base/cluster.cuh"
#include "cuda/rows/moments.cuh"

namespace normkernels::cuda {

// From those of its blocks (Chan et al. 1979), in the same order in each: of N values the first block has `room`, the
// next as many, and so on.
template <bool CENTER>
__device__ Moments<float> merge_blocks(const Moments<float>& own, int N, int room) {
  __shared__ float parts[kMostBlocks][2];
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
