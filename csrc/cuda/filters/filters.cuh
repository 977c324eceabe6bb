// What the forward and the backward of weight norm and weight standardisation share: filters, the rows of a contiguous
// (M, N), and r: 1 / |x|, or 0 where x is 0; CENTER (standardisation): 1 / sqrt(var + eps).
#pragma once

#include <algorithm>

#include "cuda/base/affine.cuh"
#include "cuda/base/line_sums.cuh"
#include "cuda/rows/moments.cuh"

namespace normkernels::cuda {

// A block holds one filter, or a few, in registers; of a longer filter a segment.
inline constexpr int kFilterThreads = 512, kFilterChunks = 4;
template <typename T>
inline constexpr int64_t kFilterLength = kFilterThreads * kFilterChunks * kPack<T>;

// Which filters a launch takes. Those of several segments take two of the same kernel: it leaves what it found of each
// segment in the workspace, then merges that.
template <typename A>
struct Filters {
  int64_t M, N;
  bool packed;  // every pointer and N is a whole number of packs
  int64_t first_row;
  int segments;
  bool merge;
  A* partial;  // (filters of a wave, segments, 2)
};

// This thread's part of a filter.
template <typename T, bool PACKED>
struct Place {
  int segment;
  int64_t row, at;  // at: the first value of the segment
  bool live, writes;
  Tile<T, PACKED> tile;

  __device__ explicit Place(const Filters<acc_t<T>>& f) : tile(0, 0) {
    const int64_t wanted = f.first_row + int64_t(blockIdx.x / f.segments) * blockDim.y + threadIdx.y;
    segment = blockIdx.x % f.segments;
    live = wanted < f.M, row = live ? wanted : f.M - 1;
    // a constant in its place made four stores of each of 128 bits
    const int64_t length = blockDim.x * kFilterChunks * kPack<T>;
    tile = Tile<T, PACKED>(live ? f.N : 0, segment * length, length);
    at = row * f.N + segment * length;
    writes = live && segment == 0 && threadIdx.x == 0;
  }
};

template <bool CENTER, typename A>
__device__ A inverse(A statistic) {
  return CENTER ? statistic : statistic > 0 ? A(1) / statistic : A(0);
}

// ---- host ----

// Every filter through a kernel that reads `tensors` tensors; workspace(n) gives room for n accumulators.
template <typename T, typename Params, typename Workspace>
void launch_filters(void (*kernel)(Params), Params p, int tensors, const Device& device, Workspace workspace) {
  auto& f = p.filters;
  f.segments = ceil_div(f.N, kFilterLength<T>);
  if (f.segments == 1) {
    const dim3 block = row_block(ceil_div<int64_t>(f.N, kPack<T>), kFilterChunks, 128);
    return launch(kernel, dim3(ceil_div<int64_t>(f.M, block.y)), block, device, p);
  }
  const int64_t wave = wave_rows<T>(f.M, f.N, tensors, device);
  f.partial = workspace(wave * f.segments * 2);
  for (f.first_row = 0; f.first_row < f.M; f.first_row += wave)
    for (const bool merge : {false, true}) {
      f.merge = merge;
      launch(kernel, dim3(f.segments * std::min(wave, f.M - f.first_row)), kFilterThreads, device, p);
    }
}

}  // namespace normkernels::cuda
