// Backward of the row family: one sweep where a row fits a block, else two. Their sums by column are dweight and dbias.
#pragma once

#include "cuda/rows/gradients.cuh"

namespace normkernels::cuda {

// Persistent blocks, a row per group of threads at a time: x and dy are read once and stay in registers.
template <typename T, bool CENTER, bool PACKED, bool ACTIVATED, bool BIAS, int C>
__global__ void __launch_bounds__(C == kBackwardChunks ? kResidentThreads : kBackwardMostThreads<T, BIAS>,
                                  kFewBlocks<!BIAS && !ACTIVATED && std::is_same_v<T, __half>, 1>)
    rows_backward_kernel(const RowsBackward<T> p) {
  using A = acc_t<T>;
  __shared__ A scratch[2][1 + CENTER][32];
  __shared__ Wide<T> columns[kSegmentThreads];
  const Tile<T, PACKED> all(p.N, 0);
  Wide<T> dw[C] = {}, db[C] = {};
  int buffer = 0;
  for (int64_t base = int64_t(blockIdx.x) * blockDim.y; base < p.M;
       base += int64_t(gridDim.x) * blockDim.y, buffer ^= 1) {
    const int64_t row = base + threadIdx.y < p.M ? base + threadIdx.y : p.M - 1;
    const Tile<T, PACKED> tile(p.N, base + threadIdx.y < p.M ? 0 : p.N);
    Pack<T> x[C], dy[C];
    tile.load(p.x + row * p.x_stride, x);
    tile.load(p.dy + row * p.dy_stride, dy);
    const A mean = CENTER ? p.mean[row] : A(0), rstd = p.rstd[row];
    A sums[1 + CENTER] = {};
    const auto accumulate = [&](int c, Pack<T>& x, Pack<T>& dy, Wide<T>& dw, Wide<T>& db) {
      add_chunk<CENTER, true, BIAS, T>(load_chunk<ACTIVATED>(p, tile, 0, c, x, dy, mean, rstd), sums, dw, db);
    };
    for_chunks<!ACTIVATED>(accumulate, x, dy, dw, db);
    row_sum(sums, tile.threads, scratch[buffer]);
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
  if constexpr (BIAS) store_columns(all, db, p.partial + (p.P + blockIdx.x) * p.N, columns);
}

// Rows that do not fit a block, 1 of 2: the sums of g * xhat and g of every (segment, row).
template <typename T, bool CENTER, bool PACKED>
__global__ void __launch_bounds__(kSegmentThreads) rows_backward_sums_kernel(const RowsBackward<T> p) {
  using A = acc_t<T>;
  __shared__ A scratch[1 + CENTER][32];
  const int64_t row = p.first_row + blockIdx.y, first = blockIdx.x * kSegment<T, kBackwardChunks>;
  const Tile<T, PACKED> tile(p.N, first, kSegment<T, kBackwardChunks>);
  Pack<T> x[kBackwardChunks], dy[kBackwardChunks];
  tile.load(p.x + row * p.x_stride + first, x);
  tile.load(p.dy + row * p.dy_stride + first, dy);
  const A mean = CENTER ? p.mean[row] : A(0), rstd = p.rstd[row];
  A sums[1 + CENTER] = {};
  Wide<T> none;
  const auto accumulate = [&](int c, Pack<T>& x, Pack<T>& dy) {
    add_chunk<CENTER, false, false, T>(load_chunk<true>(p, tile, first, c, x, dy, mean, rstd), sums, none, none);
  };
  for_chunks<false>(accumulate, x, dy);
  row_sum(sums, kSegmentThreads, scratch);
  A* out = p.row_partial + (int64_t(blockIdx.y) * p.segments + blockIdx.x) * (1 + CENTER);
  if (threadIdx.x == 0)
    for (int i = 0; i < 1 + CENTER; ++i) out[i] = sums[i];
}

// 2 of 2: a block per (segment, group of rows) adds the segments' sums of each row in the same order, and writes dx.
template <typename T, bool CENTER, bool PACKED, bool BIAS>
__global__ void __launch_bounds__(kSegmentThreads) rows_backward_segment_kernel(const RowsBackward<T> p) {
  using A = acc_t<T>;
  __shared__ A scratch[2][1 + CENTER][32];
  const int64_t first = blockIdx.x * kSegment<T, kBackwardChunks>;
  const Tile<T, PACKED> tile(p.N, first, kSegment<T, kBackwardChunks>);
  Wide<T> dw[kBackwardChunks] = {}, db[kBackwardChunks] = {};
  A* dw_out = p.partial + blockIdx.y * p.N + first;
  A* db_out = dw_out + p.P * p.N;
  if (p.partial != nullptr && p.first_row > 0) {  // go on where the wave before stopped
    tile.load(dw_out, dw);
    if constexpr (BIAS) tile.load(db_out, db);
  }
  int buffer = 0;
  for (int64_t i = blockIdx.y; i < p.rows; i += gridDim.y, buffer ^= 1) {
    const int64_t row = p.first_row + i;
    Pack<T> x[kBackwardChunks], dy[kBackwardChunks];
    tile.load(p.x + row * p.x_stride + first, x);
    tile.load(p.dy + row * p.dy_stride + first, dy);
    const A mean = CENTER ? p.mean[row] : A(0), rstd = p.rstd[row];
    A sums[1 + CENTER] = {};
    for (int j = threadIdx.x; j < p.segments; j += kSegmentThreads)
      for (int k = 0; k < 1 + CENTER; ++k) sums[k] += p.row_partial[(i * p.segments + j) * (1 + CENTER) + k];
    row_sum(sums, kSegmentThreads, scratch[buffer]);
    for (A& sum : sums) sum /= A(p.N);
    const auto finish = [&](int c, Pack<T>& x, Pack<T>& dy, Wide<T>& dw, Wide<T>& db) {
      const Chunk<T> chunk = load_chunk<true>(p, tile, first, c, x, dy, mean, rstd);
      A unused[1 + CENTER] = {};
      add_chunk<CENTER, true, BIAS, T>(chunk, unused, dw, db);
      store_dx<CENTER>(p, tile, row, first, c, chunk, sums, rstd);
    };
    for_chunks<false>(finish, x, dy, dw, db);
  }
  if (p.partial == nullptr) return;
  store_columns<T>(tile, dw, dw_out, static_cast<Wide<T>*>(nullptr));
  if constexpr (BIAS) store_columns<T>(tile, db, db_out, static_cast<Wide<T>*>(nullptr));
}

// ---- host ----

// workspace(n) gives room for n accumulators; BIAS: whether du is summed
template <typename T, bool CENTER, bool PACKED, bool ACTIVATED, bool BIAS, typename Workspace>
void launch_rows_backward(RowsBackward<T> p, LineSums<T> sums, const Device& device, Workspace workspace) {
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
  if (packs <= kResidentThreads * kBackwardChunks) {
    resident(rows_backward_kernel<T, CENTER, PACKED, ACTIVATED, BIAS, kBackwardChunks>, kBackwardChunks);
  } else if (packs <= kBackwardMostThreads<T, BIAS> * kBackwardMostChunks) {
    resident(rows_backward_kernel<T, CENTER, PACKED, ACTIVATED, BIAS, kBackwardMostChunks>, kBackwardMostChunks);
  } else {
    p.segments = ceil_div(p.N, kSegment<T, kBackwardChunks>);
    const int64_t wave = wave_rows<T>(p.M, p.N, 2, device);
    p.row_partial = workspace(wave * p.segments * (1 + CENTER));
    columns(std::clamp<int64_t>(2 * device.multiprocessors / p.segments, 1, wave));
    for (p.first_row = 0; p.first_row < p.M; p.first_row += wave) {
      p.rows = std::min(wave, p.M - p.first_row);
      launch(rows_backward_sums_kernel<T, CENTER, PACKED>, dim3(p.segments, p.rows), kSegmentThreads, device, p);
      launch(rows_backward_segment_kernel<T, CENTER, PACKED, BIAS>, dim3(p.segments, p.P), kSegmentThreads, device, p);
    }
  }
  if (wanted) line_sums(sums, device);
}

template <bool CENTER, bool BIAS, typename T, typename Workspace>
void launch_rows_backward(const RowsBackward<T>& p, const LineSums<T>& sums, const Device& device,
                          Workspace workspace) {
  if constexpr (kFast<T>) {
    const bool identity = p.affine.activation == Activation::kIdentity;
    if (p.packed && identity) return launch_rows_backward<T, CENTER, true, false, BIAS>(p, sums, device, workspace);
    if (p.packed) return launch_rows_backward<T, CENTER, true, true, BIAS>(p, sums, device, workspace);
  }
  launch_rows_backward<T, CENTER, false, true, BIAS>(p, sums, device, workspace);
}

// With a mean the sums of du are taken whether they are wanted or not: they cost it nothing, a row has them anyway.
template <bool CENTER, typename T, typename Workspace>
void rows_backward(const RowsBackward<T>& p, const LineSums<T>& sums, const Device& device, Workspace workspace) {
  if (CENTER || sums.dbias != nullptr) return launch_rows_backward<CENTER, true>(p, sums, device, workspace);
  launch_rows_backward<CENTER, CENTER>(p, sums, device, workspace);
}

}  // namespace normkernels::cuda
