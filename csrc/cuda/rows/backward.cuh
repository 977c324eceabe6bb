// Backward of the row family: one sweep where a row fits a block, else two (strips.cuh). Their sums by column are
// dweight and dbias.
#pragma once

#include "cuda/rows/cluster_sums.cuh"
#include "cuda/rows/strips.cuh"

namespace normkernels::cuda {

// Persistent blocks, a row per group of threads or, MANY, per cluster at a time: x and dy are read once and stay in
// registers, the next row's on their way beside them.
template <typename T, bool CENTER, bool PACKED, int FINISH, bool EACH, bool MANY, int C>
__global__ void __launch_bounds__(C == kBackwardChunks ? kResidentThreads : kBackwardMostThreads<T, CENTER || EACH>,
                                  backward_blocks<T, CENTER || EACH, FINISH, C>())
    rows_backward_kernel(const RowsBackward<T> p) {
  if constexpr (MANY && !kClusters) return;
  using A = acc_t<T>;
  __shared__ A scratch[2][1 + CENTER][32];
  Cluster<MANY>::begin();
  const SampleRows<EACH> sample(p.M, p.N);
  // of a row this block has the columns from `first` on, as many as it has room for
  const int room = MANY ? C * kPack<T> * blockDim.x : INT32_MAX, first = MANY ? Cluster<MANY>::rank() * room : 0;
  const int line = blockIdx.x / Cluster<MANY>::blocks();
  const Tile<T, PACKED> all(p.N, first, room);
  Wide<T> dw[C] = {}, db[C] = {};
  constexpr bool kAsks = kAsksAhead<PACKED, FINISH, C>;
  Ahead<T, CENTER, PACKED, kAsks, C> ahead(p);
  const Weights<T, kKeepsWeights<PACKED, FINISH, C>, C> weights(p.affine, all, first + sample.shift,
                                                                kAheadQuads<kAsks, C>);
  const auto request = [&](int64_t i) {
    if (i < p.M) ahead.request(all, sample.first + i, first);
  };
  request(int64_t(line) * blockDim.y + threadIdx.y);
  Cluster<MANY>::begun();
  int buffer = 0;
  for (int64_t base = int64_t(line) * blockDim.y; base < p.M; base += p.P * blockDim.y, buffer ^= 1) {
    const bool live = MANY || base + threadIdx.y < p.M;
    const int64_t row = sample.first + (live ? base + threadIdx.y : p.M - 1);
    Tile<T, PACKED> tile = all;
    if (!live) tile.columns = 0;
    Pack<T> x[C], dy[C];
    ahead.take(tile, row, first, x, dy);
    const A mean = ahead.mean, rstd = ahead.rstd;
    request(base + p.P * blockDim.y + threadIdx.y);
    A sums[1 + CENTER] = {};
    const auto accumulate = [&](int c, Pack<T>& x, Pack<T>& dy, Wide<T>& dw, Wide<T>& db) {
      add_chunk<CENTER, true, CENTER || EACH, T>(
          load_chunk<FINISH, false>(p, tile, row, first, sample.shift, c, x, dy, weights, mean, rstd), sums, dw, db);
    };
    for_chunks<FINISH == kPlain>(accumulate, x, dy, dw, db);
    row_sum<!MANY>(sums, tile.threads, scratch[buffer]);
    if constexpr (MANY) {
      __shared__ float parts[2][kMostBlocks][1 + CENTER];
      sum_blocks(sums, parts[buffer]);
    }
    // more packs spill where nothing divides
    for (A& sum : sums) sum = C > kBackwardChunks ? sum / A(p.N) : sum * p.share;
    if constexpr (!(CENTER && sizeof(T) == 2 && C == kBackwardChunks)) {  // else registers hold what both sweeps need
      keep_packed<T>(x);
      keep_packed<T>(dy);
    }
    const auto finish = [&](int c, Pack<T>& x, Pack<T>& dy) {
      const auto chunk = load_chunk<FINISH, true>(p, tile, row, first, sample.shift, c, x, dy, weights, mean, rstd);
      store_dx<CENTER>(p, tile, row, first, c, chunk, sums, rstd);
    };
    for_chunks<FINISH == kPlain>(finish, x, dy);
  }
  if (p.partial == nullptr) return;
  const int64_t samples = EACH ? gridDim.y : 1;
  auto* const columns = reinterpret_cast<Wide<T>*>(dynamic_memory());
  A* const own = p.partial + line * samples * p.N + sample.shift + first;
  store_columns(all, dw, own, columns);
  if constexpr (CENTER || EACH) store_columns(all, db, own + p.P * samples * p.N, columns);
}

// ---- host ----

// Shared memory that such a block is given; at its end it adds up there the sums by column of several rows.
template <typename T, bool PACKED, int FINISH, int C>
int row_bytes(dim3 block) {
  constexpr int kQuads =
      kAheadQuads<kAsksAhead<PACKED, FINISH, C>, C> + kWeightQuads<T, kKeepsWeights<PACKED, FINISH, C>, C>;
  return block.x * block.y * std::max(block.y > 1 ? sizeof(Wide<T>) : 0, kQuads * sizeof(uint4));
}

// workspace(n) gives room for n accumulators
template <typename T, bool CENTER, bool PACKED, int FINISH, bool EACH, typename Workspace>
void launch_rows_backward(RowsBackward<T> p, LineSums<T> sums, const Device& device, Workspace workspace) {
  const int64_t packs = ceil_div<int64_t>(p.N, kPack<T>);
  // start() launches at most so many blocks or clusters, which have as many turns each and leave a line of sums
  [[maybe_unused]] const auto persistent = [&](int64_t most, int rows, auto start) {
    const int64_t groups = std::max<int64_t>(1, ceil_div<int64_t>(p.M, rows));
    sums.P = p.P = ceil_div(groups, ceil_div(groups, std::max<int64_t>(1, most)));
    if (wanted(sums)) sums.partial = p.partial = workspace(2 * p.P * sums.N);
    start();
    if (wanted(sums)) line_sums(sums, device);
  };
  [[maybe_unused]] const auto resident = [&]<int C>(std::integral_constant<int, C>) {
    const auto kernel = rows_backward_kernel<T, CENTER, PACKED, FINISH, EACH, false, C>;
    dim3 block = row_block(packs, C, kSegmentThreads);
    block.y = std::max(1u, kSegmentThreads / block.x);  // rows, of which there are fewer sums by column then
    const int threads = block.x * block.y, shared = row_bytes<T, PACKED, FINISH, C>(block);
    persistent(resident_blocks(kernel, threads, shared, device) / p.samples, block.y,
               [&] { launch(kernel, dim3(p.P, p.samples), block, shared, device, p); });
  };
  if constexpr (FINISH != kGated) {  // beside whole rows a gate and its gradient find no registers
    constexpr int C = kBackwardChunks;
    if constexpr (kFast<T> && PACKED && FINISH == kPlain && !EACH) {
      // beside a mean registers have no room for two blocks of more
      constexpr int kAlone = CENTER && sizeof(T) == 2 ? kSegmentThreads : kResidentThreads;
      const auto kernel = rows_backward_kernel<T, CENTER, PACKED, FINISH, EACH, true, C>;
      const int64_t blocks = cluster_of(ceil_div<int64_t>(packs, kSegmentThreads * C));
      const dim3 block = row_block(ceil_div(packs, blocks), C, kSegmentThreads);
      const int shared = row_bytes<T, PACKED, FINISH, C>(block);
      const bool held = packs > kAlone * C && packs <= blocks * kResidentThreads * C;
      if (const int most = held ? resident_clusters(kernel, blocks, block.x, shared) : 0)
        return persistent(most, 1, [&] { launch_clusters(kernel, blocks, p.P * blocks, block, shared, device, p); });
    }
    if (packs <= kResidentThreads * C) return resident(std::integral_constant<int, C>{});
    if (packs <= kBackwardMostThreads < T, CENTER || EACH > *kBackwardMostChunks)
      return resident(std::integral_constant<int, kBackwardMostChunks>{});
  }
  launch_strips<T, CENTER, PACKED, FINISH, EACH>(p, sums, device, workspace);
}

template <bool CENTER, bool EACH, typename T, typename Workspace>
void launch_rows_backward(const RowsBackward<T>& p, const LineSums<T>& sums, const Device& device,
                          Workspace workspace) {
  const bool identity = p.affine.activation == Activation::kIdentity, gated = p.gate != nullptr;
  if constexpr (kFast<T>) {
    if (p.packed && gated) return launch_rows_backward<T, CENTER, true, kGated, EACH>(p, sums, device, workspace);
    if (p.packed && identity) return launch_rows_backward<T, CENTER, true, kPlain, EACH>(p, sums, device, workspace);
    if (p.packed) return launch_rows_backward<T, CENTER, true, kActivated, EACH>(p, sums, device, workspace);
  }
  gated ? launch_rows_backward<T, CENTER, false, kGated, EACH>(p, sums, device, workspace)
        : launch_rows_backward<T, CENTER, false, kActivated, EACH>(p, sums, device, workspace);
}

// Of rows that do not fit a block one sample at a time. EACH has what several samples need, and sums du: without it
// that is done beside a mean alone.
template <bool CENTER, typename T, typename Workspace>
void rows_backward(const RowsBackward<T>& p, const LineSums<T>& sums, const Device& device, Workspace workspace) {
  const bool biased = !CENTER && sums.dbias != nullptr, each = p.samples > 1 || biased;
  const int64_t threads = CENTER || each ? kBackwardMostThreads<T, true> : kBackwardMostThreads<T, false>;
  const bool resident = !p.gate && p.N <= threads * kBackwardMostChunks * kPack<T>;
  each_samples(p.samples, resident ? kMostAside : 1, workspace, [&](int64_t first, int64_t count, auto room) {
    const RowsBackward<T> own = p.of_samples(first, count);
    const LineSums<T> lines = columns_of(sums, first * p.N, count * p.N);
    count > 1 || biased ? launch_rows_backward<CENTER, true>(own, lines, device, room)
                        : launch_rows_backward<CENTER, false>(own, lines, device, room);
  });
}

}  // namespace normkernels::cuda
