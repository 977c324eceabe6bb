// Backward of the row family: one sweep where a row fits a block, else two (strips.cuh). Their sums by column are
// dweight and dbias.
#pragma once

#include "cuda/rows/strips.cuh"

namespace normkernels::cuda {

// Persistent blocks, a row per group of threads at a time: x and dy are read once and stay in registers, the next row's
// on their way beside them.
template <typename T, bool CENTER, bool PACKED, int FINISH, bool EACH, int C>
__global__ void __launch_bounds__(C == kBackwardChunks ? kResidentThreads : kBackwardMostThreads<T, CENTER || EACH>,
                                  backward_blocks<T, CENTER || EACH, FINISH, C>())
    rows_backward_kernel(const RowsBackward<T> p) {
  using A = acc_t<T>;
  __shared__ A scratch[2][1 + CENTER][32];
  __shared__ Wide<T> columns[kSegmentThreads];
  const SampleRows<EACH> sample(p.M, p.N);
  const Tile<T, PACKED> all(p.N, 0);
  Wide<T> dw[C] = {}, db[C] = {};
  Ahead<T, CENTER, PACKED, kAsksAhead<PACKED, FINISH, C>, C> ahead(p, dynamic_memory());
  const auto request = [&](int64_t i) {
    if (i < p.M) ahead.request(all, sample.first + i, 0);
  };
  request(int64_t(blockIdx.x) * blockDim.y + threadIdx.y);
  int buffer = 0;
  for (int64_t base = int64_t(blockIdx.x) * blockDim.y; base < p.M;
       base += int64_t(gridDim.x) * blockDim.y, buffer ^= 1) {
    const int64_t row = sample.first + (base + threadIdx.y < p.M ? base + threadIdx.y : p.M - 1);
    const Tile<T, PACKED> tile(p.N, base + threadIdx.y < p.M ? 0 : p.N);
    Pack<T> x[C], dy[C];
    ahead.take(tile, row, 0, x, dy);
    const A mean = ahead.mean, rstd = ahead.rstd;
    request(base + int64_t(gridDim.x) * blockDim.y + threadIdx.y);
    A sums[1 + CENTER] = {};
    const auto accumulate = [&](int c, Pack<T>& x, Pack<T>& dy, Wide<T>& dw, Wide<T>& db) {
      add_chunk<CENTER, true, CENTER || EACH, T>(
          load_chunk<FINISH, false>(p, tile, row, 0, sample.shift, c, x, dy, mean, rstd), sums, dw, db);
    };
    for_chunks<FINISH == kPlain>(accumulate, x, dy, dw, db);
    row_sum(sums, tile.threads, scratch[buffer]);
    for (A& sum : sums) sum /= A(p.N);
    keep_packed<T>(x);
    keep_packed<T>(dy);
    const auto finish = [&](int c, Pack<T>& x, Pack<T>& dy) {
      store_dx<CENTER>(p, tile, row, 0, c,
                       load_chunk<FINISH, true>(p, tile, row, 0, sample.shift, c, x, dy, mean, rstd), sums, rstd);
    };
    for_chunks<FINISH == kPlain>(finish, x, dy);
  }
  if (p.partial == nullptr) return;
  const int64_t samples = EACH ? gridDim.y : 1;
  A* const line = p.partial + blockIdx.x * samples * p.N + sample.shift;
  store_columns(all, dw, line, columns);
  if constexpr (CENTER || EACH) store_columns(all, db, line + p.P * samples * p.N, columns);
}

// ---- host ----

// workspace(n) gives room for n accumulators
template <typename T, bool CENTER, bool PACKED, int FINISH, bool EACH, typename Workspace>
void launch_rows_backward(RowsBackward<T> p, LineSums<T> sums, const Device& device, Workspace workspace) {
  const int64_t packs = ceil_div<int64_t>(p.N, kPack<T>);
  [[maybe_unused]] const auto resident = [&]<int C>(std::integral_constant<int, C>) {
    const auto kernel = rows_backward_kernel<T, CENTER, PACKED, FINISH, EACH, C>;
    const dim3 block = row_block(packs, C, kSegmentThreads);
    const int threads = block.x * block.y, shared = ahead_bytes<kAsksAhead<PACKED, FINISH, C>, C>(threads);
    const int64_t most = resident_blocks(kernel, threads, shared, device) / p.samples;
    sums.P = p.P = std::clamp<int64_t>(most, 1, ceil_div<int64_t>(p.M, block.y));
    if (wanted(sums)) sums.partial = p.partial = workspace(2 * p.P * sums.N);
    launch(kernel, dim3(p.P, p.samples), block, shared, device, p);
    if (wanted(sums)) line_sums(sums, device);
  };
  if constexpr (FINISH != kGated) {  // beside whole rows a gate and its gradient find no registers
    if (packs <= kResidentThreads * kBackwardChunks) return resident(std::integral_constant<int, kBackwardChunks>{});
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
