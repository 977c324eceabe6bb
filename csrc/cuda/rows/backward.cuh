// Backward of the row family: dx = rstd * (g - mean(g) - xhat * mean(g * xhat)) + dsummed, g = du * (w + offset),
// du = dy * act'(u); dweight and dbias are the sums of du * xhat and du over rows. Without CENTER mean(g) is left out.
#pragma once

#include "cuda/base/sums.cuh"
#include "cuda/rows/moments.cuh"

namespace normkernels::cuda {

// Packs of a thread: few; in long rows many, with as many threads as leave registers for the sums by column.
inline constexpr int kBwdChunks = 2, kBwdMostChunks = 4;
template <typename T, bool CENTER>
inline constexpr int kBwdMostThreads = CENTER && sizeof(T) == 2 ? 384 : kResidentThreads;

template <typename T>
struct RowsBwd {
  const T *dy, *dsummed, *x;  // (M, N), any row stride
  int64_t dy_stride, dsummed_stride, x_stride;
  Affine<T> affine;
  const acc_t<T>*mean, *rstd;  // (M,)
  T* dx;                       // (M, N)
  int64_t M, N;
  bool packed;        // every pointer, row stride and N is a whole number of packs
  acc_t<T>* partial;  // (2, P, N) sums of du * xhat and of du by block or group of rows; null: not wanted
  int64_t P;
  // rows that do not fit a block
  int64_t first_row, rows;  // of a wave
  int segments;
  acc_t<T>* row_partial;  // (rows, segments, 1 + CENTER)
};

// What one chunk gives: xhat, du and w + offset.
template <typename T>
struct Chunk {
  Wide<T> xhat, du, w;
};

template <bool ACTIVATED, typename T, bool PACKED>
__device__ Chunk<T> load_chunk(const RowsBwd<T>& p, const Tile<T, PACKED>& tile, int64_t first, int c, const Pack<T>& x,
                               const Pack<T>& dy, acc_t<T> mean, acc_t<T> rstd) {
  constexpr int V = kPack<T>;
  Chunk<T> chunk{widen<T>(x), widen<T>(dy), load_weight(p.affine, tile, first, c)};
#pragma unroll
  for (int k = 0; k < V; ++k) chunk.xhat.v[k] = (chunk.xhat.v[k] - mean) * rstd;
  if constexpr (ACTIVATED) {
    Wide<T> u = load_bias(p.affine, tile, first, c);
#pragma unroll
    for (int k = 0; k < V; ++k) u.v[k] += chunk.xhat.v[k] * chunk.w.v[k];
    differentiate(u.v, p.affine.activation, p.affine.slope);
#pragma unroll
    for (int k = 0; k < V; ++k) chunk.du.v[k] *= u.v[k];
  }
  return chunk;
}

// sums[0] += g * xhat and sums[1] += g, over this thread's columns; dw += du * xhat and db += du, by column
template <bool CENTER, bool COLUMNS, typename T>
__device__ void add_chunk(const Chunk<T>& chunk, acc_t<T> (&sums)[1 + CENTER], Wide<T>& dw, Wide<T>& db) {
#pragma unroll
  for (int k = 0; k < kPack<T>; ++k) {
    const acc_t<T> du = chunk.du.v[k], g = du * chunk.w.v[k];
    sums[0] += g * chunk.xhat.v[k];
    if constexpr (CENTER) sums[CENTER] += g;
    if constexpr (COLUMNS) {
      dw.v[k] += du * chunk.xhat.v[k];
      if constexpr (CENTER) db.v[k] += du;
    }
  }
}

// The row's dx; means: of g * xhat, and of g.
template <bool CENTER, typename T, bool PACKED>
__device__ void store_dx(const RowsBwd<T>& p, const Tile<T, PACKED>& tile, int64_t row, int64_t first, int c,
                         const Chunk<T>& chunk, const acc_t<T> (&means)[1 + CENTER], acc_t<T> rstd) {
  const acc_t<T> c1 = CENTER ? means[CENTER] : acc_t<T>(0), c2 = means[0];
  Wide<T> dx = Wide<T>::of([&](int k) { return rstd * (chunk.du.v[k] * chunk.w.v[k] - c1 - chunk.xhat.v[k] * c2); });
  if (p.dsummed != nullptr) {
    const Wide<T> dsummed = widen<T>(tile.load(p.dsummed + row * p.dsummed_stride + first, c));
#pragma unroll
    for (int k = 0; k < kPack<T>; ++k) dx.v[k] += dsummed.v[k];
  }
  tile.store(p.dx + row * p.N + first, c, narrow<T>(dx));
}

// A block's sums over rows: those of its threadIdx.y, added in order, into one row of the workspace.
template <typename T, bool PACKED, int C>
__device__ void store_columns(const Tile<T, PACKED>& tile, Wide<T> (&sums)[C], acc_t<T>* out, Wide<T>* scratch) {
#pragma unroll
  for (int c = 0; c < C; ++c) {
    if (blockDim.y > 1) {
      __syncthreads();
      scratch[threadIdx.y * blockDim.x + threadIdx.x] = sums[c];
      __syncthreads();
    }
    if (threadIdx.y != 0) continue;
    for (int y = 1; y < int(blockDim.y); ++y)
#pragma unroll
      for (int k = 0; k < kPack<T>; ++k) sums[c].v[k] += scratch[y * blockDim.x + threadIdx.x].v[k];
    tile.store(out, c, sums[c]);
  }
}

// Persistent blocks, a row per group of threads at a time: x and dy are read once and stay in registers.
template <typename T, bool CENTER, bool PACKED, bool ACTIVATED, int C>
__global__ void __launch_bounds__(C == kBwdChunks ? kResidentThreads : kBwdMostThreads<T, CENTER>,
                                  kFewBlocks<!CENTER && !ACTIVATED && std::is_same_v<T, __half>, 1>)
    rows_bwd_kernel(const RowsBwd<T> p) {
  using A = acc_t<T>;
  __shared__ A scratch[2][1 + CENTER][32];
  __shared__ Wide<T> columns[kSegmentThreads];
  const Tile<T, PACKED> all(p.N, 0);
  Wide<T> dw[C] = {}, db[C] = {};
  int turn = 0;
  for (int64_t base = int64_t(blockIdx.x) * blockDim.y; base < p.M;
       base += int64_t(gridDim.x) * blockDim.y, turn ^= 1) {
    const int64_t row = base + threadIdx.y < p.M ? base + threadIdx.y : p.M - 1;
    const Tile<T, PACKED> tile(p.N, base + threadIdx.y < p.M ? 0 : p.N);
    Pack<T> x[C], dy[C];
    tile.load(p.x + row * p.x_stride, x);
    tile.load(p.dy + row * p.dy_stride, dy);
    const A mean = CENTER ? p.mean[row] : A(0), rstd = p.rstd[row];
    A sums[1 + CENTER] = {};
    const auto accumulate = [&](int c, Pack<T>& x, Pack<T>& dy, Wide<T>& dw, Wide<T>& db) {
      add_chunk<CENTER, true, T>(load_chunk<ACTIVATED>(p, tile, 0, c, x, dy, mean, rstd), sums, dw, db);
    };
    for_chunks<!ACTIVATED>(accumulate, x, dy, dw, db);
    row_sum(sums, tile.threads, scratch[turn]);
    for (A& sum : sums) sum /= A(p.N);
    keep_packed<T>(x);
    keep_packed<T>(dy);
    const auto finish = [&](int c, Pack<T>& x, Pack<T>& dy) {
      store_dx<CENTER>(p, tile, row, 0, c, load_chunk<ACTIVATED>(p, tile, 0, c, x, dy, mean, rstd), sums, rstd);
    };
    for_chunks<!ACTIVATED>(finish, x, dy);
  }
  if (p.partial == nullptr) return;
  store_columns(all, dw, p.partial + blockIdx.x * p.N, columns);
  if constexpr (CENTER) store_columns(all, db, p.partial + (p.P + blockIdx.x) * p.N, columns);
}

// Rows that do not fit a block, 1 of 2: the sums of g * xhat and g of every (segment, row).
template <typename T, bool CENTER, bool PACKED>
__global__ void __launch_bounds__(kSegmentThreads) rows_bwd_sums_kernel(const RowsBwd<T> p) {
  using A = acc_t<T>;
  __shared__ A scratch[1 + CENTER][32];
  const int64_t row = p.first_row + blockIdx.y, first = blockIdx.x * kSegment<T, kBwdChunks>;
  const Tile<T, PACKED> tile(p.N, first, kSegment<T, kBwdChunks>);
  Pack<T> x[kBwdChunks], dy[kBwdChunks];
  tile.load(p.x + row * p.x_stride + first, x);
  tile.load(p.dy + row * p.dy_stride + first, dy);
  const A mean = CENTER ? p.mean[row] : A(0), rstd = p.rstd[row];
  A sums[1 + CENTER] = {};
  Wide<T> none;
  const auto accumulate = [&](int c, Pack<T>& x, Pack<T>& dy) {
    add_chunk<CENTER, false, T>(load_chunk<true>(p, tile, first, c, x, dy, mean, rstd), sums, none, none);
  };
  for_chunks<false>(accumulate, x, dy);
  row_sum(sums, kSegmentThreads, scratch);
  A* out = p.row_partial + (int64_t(blockIdx.y) * p.segments + blockIdx.x) * (1 + CENTER);
  if (threadIdx.x == 0)
    for (int i = 0; i < 1 + CENTER; ++i) out[i] = sums[i];
}

// 2 of 2: a block per (segment, group of rows) adds the segments' sums of each row in the same order, and writes dx.
template <typename T, bool CENTER, bool PACKED>
__global__ void __launch_bounds__(kSegmentThreads) rows_bwd_segment_kernel(const RowsBwd<T> p) {
  using A = acc_t<T>;
  __shared__ A scratch[2][1 + CENTER][32];
  const int64_t first = blockIdx.x * kSegment<T, kBwdChunks>;
  const Tile<T, PACKED> tile(p.N, first, kSegment<T, kBwdChunks>);
  Wide<T> dw[kBwdChunks] = {}, db[kBwdChunks] = {};
  A* dw_out = p.partial + blockIdx.y * p.N + first;
  A* db_out = dw_out + p.P * p.N;
  if (p.partial != nullptr && p.first_row > 0) {  // go on where the wave before stopped
    tile.load(dw_out, dw);
    if constexpr (CENTER) tile.load(db_out, db);
  }
  int turn = 0;
  for (int64_t i = blockIdx.y; i < p.rows; i += gridDim.y, turn ^= 1) {
    const int64_t row = p.first_row + i;
    Pack<T> x[kBwdChunks], dy[kBwdChunks];
    tile.load(p.x + row * p.x_stride + first, x);
    tile.load(p.dy + row * p.dy_stride + first, dy);
    const A mean = CENTER ? p.mean[row] : A(0), rstd = p.rstd[row];
    A sums[1 + CENTER] = {};
    for (int j = threadIdx.x; j < p.segments; j += kSegmentThreads)
      for (int k = 0; k < 1 + CENTER; ++k) sums[k] += p.row_partial[(i * p.segments + j) * (1 + CENTER) + k];
    row_sum(sums, kSegmentThreads, scratch[turn]);
    for (A& sum : sums) sum /= A(p.N);
    const auto finish = [&](int c, Pack<T>& x, Pack<T>& dy, Wide<T>& dw, Wide<T>& db) {
      const Chunk<T> chunk = load_chunk<true>(p, tile, first, c, x, dy, mean, rstd);
      A unused[1 + CENTER] = {};
      add_chunk<CENTER, true, T>(chunk, unused, dw, db);
      store_dx<CENTER>(p, tile, row, first, c, chunk, sums, rstd);
    };
    for_chunks<false>(finish, x, dy, dw, db);
  }
  if (p.partial == nullptr) return;
  store_columns<T>(tile, dw, dw_out, static_cast<Wide<T>*>(nullptr));
  if constexpr (CENTER) store_columns<T>(tile, db, db_out, static_cast<Wide<T>*>(nullptr));
}

// ---- host ----

// workspace(n) gives room for n accumulators
template <typename T, bool CENTER, bool PACKED, bool ACTIVATED, typename Workspace>
void launch_rows_bwd(RowsBwd<T> p, ColumnSums<T> sums, const Device& device, Workspace workspace) {
  const bool wanted = sums.dweight != nullptr || sums.dbias != nullptr;
  const int64_t packs = ceil_div<int64_t>(p.N, kPack<T>);
  const auto columns = [&](int64_t P) {
    sums.P = p.P = P;
    if (wanted) sums.partial = p.partial = workspace(2 * P * p.N);
  };
  const auto resident = [&](auto kernel, int chunks) {
    const dim3 block = row_block(packs, chunks, kSegmentThreads);
    columns(std::min<int64_t>(ceil_div<int64_t>(p.M, block.y), resident_blocks(kernel, block.x * block.y, device)));
    launch(kernel, dim3(p.P), block, device, p);
  };
  if (packs <= kResidentThreads * kBwdChunks) {
    resident(rows_bwd_kernel<T, CENTER, PACKED, ACTIVATED, kBwdChunks>, kBwdChunks);
  } else if (packs <= kBwdMostThreads<T, CENTER> * kBwdMostChunks) {
    resident(rows_bwd_kernel<T, CENTER, PACKED, ACTIVATED, kBwdMostChunks>, kBwdMostChunks);
  } else {
    p.segments = ceil_div(p.N, kSegment<T, kBwdChunks>);
    const int64_t wave = wave_rows<T>(p.M, p.N, 2, device);
    p.row_partial = workspace(wave * p.segments * (1 + CENTER));
    columns(std::clamp<int64_t>(2 * device.multiprocessors / p.segments, 1, wave));
    for (p.first_row = 0; p.first_row < p.M; p.first_row += wave) {
      p.rows = std::min(wave, p.M - p.first_row);
      launch(rows_bwd_sums_kernel<T, CENTER, PACKED>, dim3(p.segments, p.rows), kSegmentThreads, device, p);
      launch(rows_bwd_segment_kernel<T, CENTER, PACKED>, dim3(p.segments, p.P), kSegmentThreads, device, p);
    }
  }
  if (wanted) column_sums(sums, device);
}

template <bool CENTER, typename T, typename Workspace>
void rows_bwd(const RowsBwd<T>& p, const ColumnSums<T>& sums, const Device& device, Workspace workspace) {
  if constexpr (kFast<T>) {
    const bool identity = p.affine.activation == Activation::kIdentity;
    if (p.packed && identity) return launch_rows_bwd<T, CENTER, true, false>(p, sums, device, workspace);
    if (p.packed) return launch_rows_bwd<T, CENTER, true, true>(p, sums, device, workspace);
  }
  launch_rows_bwd<T, CENTER, false, true>(p, sums, device, workspace);
}

}  // namespace normkernels::cuda
