// Gradients of a chunk of a row: dx = rstd * (g - mean(g) - xhat * mean(g * xhat)) + dsummed, g = du * (w + offset),
// du = dy * act'(u), or dy * act(gate) and dgate = dy * u * act'(gate); dweight and dbias are the sums of du * xhat and
// du over rows. Without CENTER mean(g) is left out.
#pragma once

#include "cuda/base/line_sums.cuh"
#include "cuda/rows/moments.cuh"
#include "cuda/rows/weights.cuh"

namespace normkernels::cuda {

// Packs of a thread: few; in long rows many, with as many threads as leave registers for the sums by column.
inline constexpr int kBackwardChunks = 2, kBackwardMostChunks = 4;
template <typename T, bool BIAS>
inline constexpr int kBackwardMostThreads = BIAS && sizeof(T) != 4 ? 384 : kResidentThreads;
// On sm_100 RMS norm spills with the 64 registers of a thread that two such blocks leave.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
inline constexpr bool kManyRegisters = true;
#else
inline constexpr bool kManyRegisters = false;
#endif
// For __launch_bounds__: two blocks of the most threads where few packs leave room for them, else as kFewBlocks has it.
template <typename T, bool BIAS, int FINISH, int C>
constexpr int backward_blocks() {
  const bool two = FINISH == kPlain && C == kBackwardChunks;
  if (std::is_same_v<T, float>) return two ? 2 : 1;
  if (std::is_same_v<T, double>) return C == kBackwardChunks;
  if (BIAS || std::is_same_v<T, __half>) return 1;
  return two && !kManyRegisters ? 2 : 1;
}

template <typename T>
struct RowsBackward {
  const T *dy, *dsummed, *x;  // (M, N), any row stride
  int64_t dy_stride, dsummed_stride, x_stride;
  const T* gate = nullptr;  // (M, N), any row stride
  int64_t gate_stride = 0;
  Affine<T> affine;
  const acc_t<T>*mean, *rstd;  // (M,)
  T *dx, *dgate;               // (M, N); dgate: null where it is not wanted
  int64_t M, N;                // rows of a sample, and their values
  int64_t samples = 1;         // each with a weight and a bias of its own
  acc_t<T> share;              // 1 / N
  bool packed;                 // every pointer, row stride and N is a whole number of packs
  acc_t<T>* partial;  // (2, P, samples, N) sums of du * xhat and of du by block or group of rows; null: not wanted
  int64_t P;
  // rows that do not fit a block
  int segments;
  acc_t<T>* row_partial;  // (M, segments, 1 + CENTER)
  LineSums<T> lines;      // dweight and dbias of a strip that all rows are added up in; else without any

  RowsBackward of_samples(int64_t first, int64_t count) const {
    RowsBackward own = *this;
    own.dy += first * M * dy_stride;
    own.dsummed = advance(dsummed, first * M * dsummed_stride);
    own.x += first * M * x_stride;
    own.gate = advance(gate, first * M * gate_stride);
    own.affine = advance(affine, first * N);
    own.mean = advance(mean, first * M);
    own.rstd += first * M;
    own.dx += first * M * N;
    own.dgate = advance(dgate, first * M * N);
    own.samples = count, own.share = acc_t<T>(1) / N;
    return own;
  }
};

// The sums of some columns alone
template <typename T>
LineSums<T> columns_of(LineSums<T> sums, int64_t first, int64_t count) {
  const auto from = [&](void* p, bool is_float) {
    return advance(static_cast<char*>(p), first * int64_t(is_float ? sizeof(float) : sizeof(T)));
  };
  sums.dweight = from(sums.dweight, sums.dweight_is_float);
  sums.dbias = from(sums.dbias, sums.dbias_is_float);
  sums.N = count;
  return sums;
}

// What one chunk gives: xhat, du and w + offset.
template <typename T>
struct Chunk {
  Wide<T> xhat, du, w;
};

// du from dy through the gate of a chunk; u: what it multiplies. LAST: the call for it that keeps dgate.
template <bool LAST, typename T, bool PACKED>
__device__ void through_gate(const RowsBackward<T>& p, const Tile<T, PACKED>& tile, int64_t row, int64_t first, int c,
                             Wide<T>& u, Wide<T>& du) {
  Wide<T> g = widen<T>(tile.load(p.gate + row * p.gate_stride + first, c));
  if (LAST && p.dgate != nullptr) {
    Wide<T> slope = g;
    differentiate(slope.v, p.affine.activation, p.affine.slope);
#pragma unroll
    for (int k = 0; k < kPack<T>; ++k) u.v[k] *= du.v[k] * slope.v[k];
    tile.store(p.dgate + row * p.N + first, c, narrow<T>(u));
  }
  activate(g.v, p.affine.activation, p.affine.slope);
#pragma unroll
  for (int k = 0; k < kPack<T>; ++k) du.v[k] *= g.v[k];
}

// Columns `first` and on of a row, whose weight and bias are `shift` further
template <int FINISH, bool LAST, typename T, bool PACKED, typename Weights>
__device__ Chunk<T> load_chunk(const RowsBackward<T>& p, const Tile<T, PACKED>& tile, int64_t row, int64_t first,
                               int64_t shift, int c, const Pack<T>& x, const Pack<T>& dy, const Weights& weights,
                               acc_t<T> mean, acc_t<T> rstd) {
  constexpr int V = kPack<T>;
  Chunk<T> chunk{widen<T>(x), widen<T>(dy), weights.of(tile, first + shift, c)};
#pragma unroll
  for (int k = 0; k < V; ++k) chunk.xhat.v[k] = (chunk.xhat.v[k] - mean) * rstd;
  if constexpr (FINISH != kPlain) {
    Wide<T> u = load_bias(p.affine, tile, first + shift, c);
#pragma unroll
    for (int k = 0; k < V; ++k) u.v[k] += chunk.xhat.v[k] * chunk.w.v[k];
    if constexpr (FINISH == kGated) {
      through_gate<LAST>(p, tile, row, first, c, u, chunk.du);
      return chunk;
    }
    differentiate(u.v, p.affine.activation, p.affine.slope);
#pragma unroll
    for (int k = 0; k < V; ++k) chunk.du.v[k] *= u.v[k];
  }
  return chunk;
}

// sums[0] += g * xhat and sums[1] += g, over this thread's columns; dw += du * xhat and, with BIAS, db += du, by column
template <bool CENTER, bool COLUMNS, bool BIAS, typename T>
__device__ void add_chunk(const Chunk<T>& chunk, acc_t<T> (&sums)[1 + CENTER], Wide<T>& dw, Wide<T>& db) {
#pragma unroll
  for (int k = 0; k < kPack<T>; ++k) {
    const acc_t<T> du = chunk.du.v[k], g = du * chunk.w.v[k];
    sums[0] += g * chunk.xhat.v[k];
    if constexpr (CENTER) sums[CENTER] += g;
    if constexpr (COLUMNS) {
      dw.v[k] += du * chunk.xhat.v[k];
      if constexpr (BIAS) db.v[k] += du;
    }
  }
}

// The row's dx; means: of g * xhat, and of g.
template <bool CENTER, typename T, bool PACKED>
__device__ void store_dx(const RowsBackward<T>& p, const Tile<T, PACKED>& tile, int64_t row, int64_t first, int c,
                         const Chunk<T>& chunk, const acc_t<T> (&means)[1 + CENTER], acc_t<T> rstd) {
  Wide<T> dx = Wide<T>::of([&](int k) {  // each in the fewest operations
    const acc_t<T> g = chunk.du.v[k] * chunk.w.v[k];
    if constexpr (CENTER) return g * rstd - means[CENTER] * rstd - chunk.xhat.v[k] * (means[0] * rstd);
    return rstd * (g - chunk.xhat.v[k] * means[0]);
  });
  if (p.dsummed != nullptr) {
    const Wide<T> dsummed = widen<T>(tile.load(p.dsummed + row * p.dsummed_stride + first, c));
#pragma unroll
    for (int k = 0; k < kPack<T>; ++k) dx.v[k] += dsummed.v[k];
  }
  tile.store(p.dx + row * p.N + first, c, narrow<T>(dx));
}

// A block's sums over rows: those of its threadIdx.y, added in order; keep(c, sum) has a chunk's.
template <typename T, int C, typename Keep>
__device__ void sum_columns(Wide<T> (&sums)[C], Wide<T>* scratch, Keep keep) {
#pragma unroll
  for (int c = 0; c < C; ++c) {
    if (blockDim.y > 1) {
      __syncthreads();
      scratch[threadIdx.y * blockDim.x + threadIdx.x] = sums[c];
      __syncthreads();
    }
    if (threadIdx.y != 0) continue;
#pragma unroll 1
    for (int y = 1; y < int(blockDim.y); ++y)
#pragma unroll
      for (int k = 0; k < kPack<T>; ++k) sums[c].v[k] += scratch[y * blockDim.x + threadIdx.x].v[k];
    keep(c, sums[c]);
  }
}

// The same, into one row of the workspace.
template <typename T, bool PACKED, int C>
__device__ void store_columns(const Tile<T, PACKED>& tile, Wide<T> (&sums)[C], acc_t<T>* out, Wide<T>* scratch) {
  sum_columns<T>(sums, scratch, [&](int c, const Wide<T>& sum) { tile.store(out, c, sum); });
}

}  // namespace normkernels::cuda
