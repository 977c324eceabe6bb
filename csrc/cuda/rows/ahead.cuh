// The next row of a persistent block: asked for before the one at hand is reduced, so that memory answers meanwhile.
#pragma once

#include <cuda_pipeline_primitives.h>

#include "cuda/base/own_memory.cuh"
#include "cuda/base/shared_memory.cuh"
#include "cuda/rows/gradients.cuh"

namespace normkernels::cuda {

// Not what no 128-bit access reaches, nor long rows under an activation or a gate, whose registers are all taken.
template <bool PACKED, int FINISH, int C>
inline constexpr bool kAsksAhead = PACKED && (FINISH == kPlain || C <= kBackwardChunks);

// Of few packs, for which any device has the room beside that.
template <bool PACKED, int FINISH, int C>
inline constexpr bool kKeepsWeights = PACKED && FINISH == kPlain && C <= kBackwardChunks;

template <bool ASK, int C>
inline constexpr int kAheadQuads = ASK ? 2 * C : 0;  // of shared memory, for each thread

// x and dy of a thread's C packs, and their row's statistics. Packs wait in shared memory and take no register; a
// thread takes only what it asked for itself, so that its own wait is enough and nobody needs a barrier. Without ASK
// everything is read when it is taken.
template <typename T, bool CENTER, bool PACKED, bool ASK, int C>
struct Ahead {
  const RowsBackward<T>& p;
  uint4* const slots = own_memory<kAheadQuads<ASK, C>>(0);  // of C packs of x and as many of dy
  acc_t<T> mean = 0, rstd = 0;

  __device__ explicit Ahead(const RowsBackward<T>& p) : p(p) {}

  // The part of a row from column `first` on, once the row before was taken.
  __device__ void request(const Tile<T, PACKED>& tile, int64_t row, int64_t first) {
    if constexpr (ASK) {
      const T *x = p.x + row * p.x_stride + first, *dy = p.dy + row * p.dy_stride + first;
#pragma unroll
      for (int c = 0; c < C; ++c) {
        if (!tile.holds(c, 0)) continue;
        __pipeline_memcpy_async(slots + c * kBeside, x + tile.column(c, 0), sizeof(uint4));
        __pipeline_memcpy_async(slots + (C + c) * kBeside, dy + tile.column(c, 0), sizeof(uint4));
      }
      __pipeline_commit();
      statistics(row);
    }
  }

  // The same part of the same row, once it has come; mean and rstd are its own until the next request.
  __device__ void take(const Tile<T, PACKED>& tile, int64_t row, int64_t first, Pack<T> (&x)[C], Pack<T> (&dy)[C]) {
    if constexpr (ASK) {
      __pipeline_wait_prior(0);
#pragma unroll
      for (int c = 0; c < C; ++c) {
        const bool held = tile.holds(c, 0);
        reinterpret_cast<uint4&>(x[c]) = held ? slots[c * kBeside] : make_uint4(0, 0, 0, 0);
        reinterpret_cast<uint4&>(dy[c]) = held ? slots[(C + c) * kBeside] : make_uint4(0, 0, 0, 0);
      }
    } else {
      tile.load(p.x + row * p.x_stride + first, x);
      tile.load(p.dy + row * p.dy_stride + first, dy);
      statistics(row);
    }
  }

 private:
  __device__ void statistics(int64_t row) {
    if constexpr (CENTER) mean = p.mean[row];
    rstd = p.rstd[row];
  }
};

}  // namespace normkernels::cuda
