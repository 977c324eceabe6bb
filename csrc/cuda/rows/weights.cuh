// The weights of the columns that a thread has in every row.
#pragma once

#include "cuda/base/affine.cuh"
#include "cuda/base/own_memory.cuh"

namespace normkernels::cuda {

template <typename T, bool KEEP, int C>
inline constexpr int kWeightQuads = KEEP ? C * int(sizeof(Wide<T>) / sizeof(uint4)) : 0;  // as kAheadQuads

// w + offset of its C packs. KEEP: widened once, in shared memory; a thread reads only what it wrote itself, so that
// nobody needs a barrier. Else they are loaded for every row.
template <typename T, bool KEEP, int C>
struct Weights {
  static constexpr int kQuads = sizeof(Wide<T>) / sizeof(uint4);
  const Affine<T>& affine;
  uint4* const slots;

  // at: where the tile's weights begin; before: quads of a thread's shared memory that are others'
  template <bool PACKED>
  __device__ Weights(const Affine<T>& affine, const Tile<T, PACKED>& tile, int64_t at, int before)
      : affine(affine), slots(own_memory<kWeightQuads<T, KEEP, C>>(before)) {
    if constexpr (KEEP) {
#pragma unroll
      for (int c = 0; c < C; ++c) {
        const Wide<T> w = load_weight(affine, tile, at, c);
#pragma unroll
        for (int q = 0; q < kQuads; ++q) slots[(c * kQuads + q) * kBeside] = reinterpret_cast<const uint4*>(&w)[q];
      }
    }
  }

  // at: as given at first
  template <bool PACKED>
  __device__ Wide<T> of(const Tile<T, PACKED>& tile, int64_t at, int c) const {
    if constexpr (!KEEP) return load_weight(affine, tile, at, c);
    Wide<T> w;
#pragma unroll
    for (int q = 0; q < kQuads; ++q) reinterpret_cast<uint4*>(&w)[q] = slots[(c * kQuads + q) * kBeside];
    return w;
  }
};

}  // namespace normkernels::cuda
