// Backward of rows that do not fit a block: their sums by segment, then strips of columns that all rows are walked in.
#pragma once

#include "cuda/rows/ahead.cuh"

namespace normkernels::cuda {

inline constexpr int kSumChunks = 2;  // packs of a thread

// 1 of 2: the sums of g * xhat and g of every (row, segment); of rows shorter than a segment several to a block.
template <typename T, bool CENTER, bool PACKED, int FINISH>
__global__ void __launch_bounds__(kSegmentThreads, kFewBlocks<FINISH == kGated && !PACKED, 1>)
    rows_backward_sums_kernel(const RowsBackward<T> p) {
  using A = acc_t<T>;
  __shared__ A scratch[1 + CENTER][32];
  const int64_t wanted = blockIdx.x / p.segments * int64_t(blockDim.y) + threadIdx.y, segment = blockIdx.x % p.segments;
  const int64_t row = wanted < p.M ? wanted : p.M - 1, first = segment * kSegment<T, kSumChunks>;
  const Tile<T, PACKED> tile(p.N, wanted < p.M ? first : p.N, kSegment<T, kSumChunks>);
  Pack<T> x[kSumChunks], dy[kSumChunks];
  tile.load(p.x + row * p.x_stride + first, x);
  tile.load(p.dy + row * p.dy_stride + first, dy);
  const A mean = CENTER ? p.mean[row] : A(0), rstd = p.rstd[row];
  const Weights<T, false, kSumChunks> weights(p.affine, tile, first, 0);
  A sums[1 + CENTER] = {};
  Wide<T> none;
  const auto accumulate = [&](int c, Pack<T>& x, Pack<T>& dy) {
    add_chunk<CENTER, false, false, T>(load_chunk<FINISH, false>(p, tile, row, first, 0, c, x, dy, weights, mean, rstd),
                                       sums, none, none);
  };
  for_chunks<FINISH == kPlain>(accumulate, x, dy);
  row_sum(sums, blockDim.x, scratch);
  if (threadIdx.x != 0 || wanted >= p.M) return;
  for (int i = 0; i < 1 + CENTER; ++i) p.row_partial[(row * p.segments + segment) * (1 + CENTER) + i] = sums[i];
}

// The means over a row of what its segments have, added by 32 lanes however wide a strip is, so that a row has the same
// bits among few rows and among many. Of one segment, which is all, the lanes of a warp may have several rows.
template <bool CENTER, typename T>
__device__ void row_means(const RowsBackward<T>& p, int64_t row, acc_t<T> (&means)[1 + CENTER]) {
  const acc_t<T>* parts = p.row_partial + row * p.segments * (1 + CENTER);
  for (int j = p.segments > 1 ? threadIdx.x % 32 : 0; j < p.segments; j += 32)
    for (int k = 0; k < 1 + CENTER; ++k) means[k] += parts[j * (1 + CENTER) + k];
  if (p.segments > 1) row_sum(means, 32, static_cast<acc_t<T>(*)[32]>(nullptr));
  for (acc_t<T>& mean : means) mean *= p.share;
}

// 2 of 2: a block has a strip of columns, a pack to a thread, and every threadIdx.y a row at a time: of all rows, or of
// a share of them where rows are many and strips too few to fill the device.
template <typename T, bool CENTER, bool PACKED, int FINISH, bool EACH>
__global__ void __launch_bounds__(kSegmentThreads, 1) rows_backward_strip_kernel(const RowsBackward<T> p) {
  using A = acc_t<T>;
  __shared__ Wide<T> columns[kSegmentThreads];
  const int64_t first = int64_t(blockIdx.x) * blockDim.x * kPack<T>, step = int64_t(gridDim.y) * blockDim.y;
  const Tile<T, PACKED> all(p.N, first, blockDim.x * kPack<T>);
  Wide<T> dw[1] = {}, db[1] = {};
  Ahead<T, CENTER, PACKED, PACKED, 1> ahead(p);
  const Weights<T, kKeepsWeights<PACKED, FINISH, 1>, 1> weights(p.affine, all, first, kAheadQuads<PACKED, 1>);
  const auto request = [&](int64_t row) {
    if (row < p.M) ahead.request(all, row, first);
  };
  request(int64_t(blockIdx.y) * blockDim.y + threadIdx.y);
  for (int64_t base = int64_t(blockIdx.y) * blockDim.y; base < p.M; base += step) {
    const int64_t wanted = base + threadIdx.y, row = wanted < p.M ? wanted : p.M - 1;
    const Tile<T, PACKED> tile(p.N, wanted < p.M ? first : p.N, blockDim.x * kPack<T>);
    Pack<T> x[1], dy[1];
    ahead.take(tile, row, first, x, dy);
    const A mean = ahead.mean, rstd = ahead.rstd;
    request(wanted + step);
    A means[1 + CENTER] = {}, unused[1 + CENTER] = {};
    row_means<CENTER>(p, row, means);
    const Chunk<T> chunk = load_chunk<FINISH, true>(p, tile, row, first, 0, 0, x[0], dy[0], weights, mean, rstd);
    add_chunk<CENTER, true, CENTER || EACH, T>(chunk, unused, dw[0], db[0]);
    store_dx<CENTER>(p, tile, row, first, 0, chunk, means, rstd);
  }
  const auto keep = [&](Wide<T>(&sums)[1], int which) {
    sum_columns<T>(sums, columns, [&](int, const Wide<T>& sum) {
      if (p.partial != nullptr) return all.store(p.partial + (which * p.P + blockIdx.y) * p.N + first, 0, sum);
#pragma unroll
      for (int k = 0; k < kPack<T>; ++k)
        if (all.holds(0, k)) p.lines.write(first + all.column(0, k), which, sum.v[k]);
    });
  };
  if (p.P == 0) return;  // nobody wants them
  keep(dw, 0);
  if constexpr (CENTER || EACH) keep(db, 1);
}

// ---- host ----

// A block of a strip: so many rows beside each other that few lanes idle, of few rows longer pieces.
inline dim3 strip_block(int64_t M, int64_t packs) {
  int rows = 1, width = 1;
  while (rows < M && rows < kSegmentThreads / 32) rows *= 2;
  while (width < packs && width < kSegmentThreads / rows) width *= 2;
  return dim3(width, kSegmentThreads / width);
}

template <typename T, bool CENTER, bool PACKED, int FINISH, bool EACH, typename Workspace>
void launch_strips(RowsBackward<T> p, LineSums<T> sums, const Device& device, Workspace workspace) {
  constexpr int64_t kTurns = 16;  // of a block at least, before its rows are shared out
  const int64_t packs = ceil_div<int64_t>(p.N, kPack<T>);
  p.segments = ceil_div(p.N, kSegment<T, kSumChunks>);
  p.row_partial = workspace(p.M * p.segments * (1 + CENTER));
  const dim3 whole = p.segments > 1 ? dim3(kSegmentThreads) : row_block(packs, kSumChunks, kSegmentThreads);
  launch(rows_backward_sums_kernel<T, CENTER, PACKED, FINISH>, dim3(p.segments * ceil_div<int64_t>(p.M, whole.y)),
         whole, device, p);
  const auto kernel = rows_backward_strip_kernel<T, CENTER, PACKED, FINISH, EACH>;
  const dim3 block = strip_block(p.M, packs);
  const int quads = kAheadQuads<PACKED, 1> + kWeightQuads<T, kKeepsWeights<PACKED, FINISH, 1>, 1>;
  const int shared = quads * kSegmentThreads * int(sizeof(uint4));
  const int64_t strips = ceil_div<int64_t>(packs, block.x);
  const int64_t most = resident_blocks(kernel, kSegmentThreads, shared, device) / strips;
  const int64_t shares = std::clamp<int64_t>(most, 1, ceil_div<int64_t>(p.M, block.y * kTurns));
  if (wanted(sums)) {
    sums.P = p.P = shares;
    if (shares > 1) sums.partial = p.partial = workspace(2 * shares * p.N);
    p.lines = sums;
  }
  launch(kernel, dim3(strips, shares), block, shared, device, p);
  if (p.partial != nullptr) line_sums(sums, device);
}

}  // namespace normkernels::cuda
