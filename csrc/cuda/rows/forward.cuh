// Forward of the row family: u = xhat * (w + offset) + b, xhat = (s - mean) * rstd, s = x + residual; y = act(u), or
// u act(gate).
// CENTER subtracts the mean (layer norm); without it xhat = s * rstd with rstd of the mean square (RMS norm).
#pragma once

#include "cuda/base/affine.cuh"
#include "cuda/rows/cluster_sums.cuh"

namespace normkernels::cuda {

inline constexpr int kForwardChunks = 4;  // packs of a thread

template <typename T>
struct RowsForward {
  const T *x, *residual;  // (M, N), any row stride
  int64_t x_stride, residual_stride;
  const T* gate = nullptr;  // (M, N), any row stride
  int64_t gate_stride = 0;
  Affine<T> affine;
  T *y, *summed;         // (M, N)
  acc_t<T>*mean, *rstd;  // (M,)
  acc_t<T> eps;
  int64_t M, N;         // rows of a sample, and their values
  int64_t samples = 1;  // each with a weight and a bias of its own
  bool packed;          // every pointer, row stride and N is a whole number of packs
  // rows that do not fit a block
  int segments;
  Moments<acc_t<T>>* partial;  // (M, segments)

  RowsForward of_samples(int64_t first, int64_t count) const {
    RowsForward own = *this;
    own.x += first * M * x_stride;
    own.residual = advance(residual, first * M * residual_stride);
    own.gate = advance(gate, first * M * gate_stride);
    own.affine = advance(affine, first * N);
    own.y += first * M * N;
    own.summed = advance(summed, first * M * N);
    own.mean = advance(mean, first * M);
    own.rstd += first * M;
    own.samples = count;
    return own;
  }
};

// s of C chunks, rounded to T and kept in `summed` where there is a residual
template <typename T, bool PACKED, int C>
__device__ void load_summed(const RowsForward<T>& p, const Tile<T, PACKED>& tile, int64_t row, int64_t first,
                            Pack<T> (&s)[C]) {
  tile.load(p.x + row * p.x_stride + first, s);
  if (p.residual == nullptr) return;
  Pack<T> r[C];
  tile.load(p.residual + row * p.residual_stride + first, r);
  const auto add = [&](int c, Pack<T>& s, Pack<T>& r) {
    const Wide<T> x = widen<T>(s), skip = widen<T>(r);
    s = narrow<T>(Wide<T>::of([&](int k) { return x.v[k] + skip.v[k]; }));
    tile.store(p.summed + row * p.N + first, c, s);
  };
  for_chunks<PACKED>(add, s, r);
}

// y of a chunk, in place of u
template <int FINISH, typename T, bool PACKED>
__device__ void complete(const RowsForward<T>& p, const Tile<T, PACKED>& tile, int64_t row, int64_t first, int c,
                         Wide<T>& u) {
  if constexpr (FINISH == kPlain) return;
  if constexpr (FINISH == kGated) {
    Wide<T> g = widen<T>(tile.load(p.gate + row * p.gate_stride + first, c));
    activate(g.v, p.affine.activation, p.affine.slope);
#pragma unroll
    for (int k = 0; k < kPack<T>; ++k) u.v[k] *= g.v[k];
    return;
  }
  activate(u.v, p.affine.activation, p.affine.slope);
}

template <int FINISH, typename T, bool PACKED, int C>
__device__ void store_y(const RowsForward<T>& p, const Tile<T, PACKED>& tile, int64_t row, int64_t first, int64_t shift,
                        Pack<T> (&s)[C], acc_t<T> mean, acc_t<T> rstd) {
  for_chunks<FINISH == kPlain>(
      [&](int c, Pack<T>& chunk) {
        const Wide<T> w = load_weight(p.affine, tile, first + shift, c);
        const Wide<T> b = load_bias(p.affine, tile, first + shift, c);
        Wide<T> u = widen<T>(chunk);
#pragma unroll
        for (int k = 0; k < kPack<T>; ++k) u.v[k] = (u.v[k] - mean) * rstd * w.v[k] + b.v[k];
        complete<FINISH>(p, tile, row, first, c, u);
        tile.store(p.y + row * p.N + first, c, narrow<T>(u));
      },
      s);
}

template <typename T>
__device__ void store_statistics(const RowsForward<T>& p, int64_t row, acc_t<T> mean, acc_t<T> rstd) {
  if (p.mean != nullptr) p.mean[row] = mean;
  p.rstd[row] = rstd;
}

// A row per group of threads or, MANY, per cluster, held in registers between its one read and its one write.
template <typename T, bool CENTER, bool PACKED, int FINISH, bool EACH, bool MANY, int C>
__global__ void __launch_bounds__(C == 1 ? 128 : kResidentThreads) rows_forward_kernel(const RowsForward<T> p) {
  if constexpr (MANY && !kClusters) return;
  using A = acc_t<T>;
  __shared__ A scratch[2][1][32];
  Cluster<MANY>::begin();
  const SampleRows<EACH> sample(p.M, p.N);
  const int64_t within = MANY ? blockIdx.x / Cluster<MANY>::blocks() : int64_t(blockIdx.x) * blockDim.y + threadIdx.y;
  const int64_t row = sample.first + within;
  const int room = C * kPack<T> * blockDim.x, first = Cluster<MANY>::rank() * room;
  const Tile<T, PACKED> tile(p.N, within < p.M ? first : p.N, MANY ? room : INT32_MAX);
  Pack<T> s[C];
  load_summed(p, tile, row, first, s);
  auto moments = tile_moments<CENTER>(tile, s, scratch);
  if constexpr (MANY) moments = merge_blocks<CENTER>(moments, p.N, room);
  const A rstd = rsqrt(moments.squares / A(p.N) + p.eps);
  if (threadIdx.x == 0 && within < p.M && first == 0) store_statistics(p, row, moments.mean, rstd);
  store_y<FINISH>(p, tile, row, first, sample.shift, s, moments.mean, rstd);
}

// Rows that neither a block nor a cluster holds, 1 of 2: {mean, sum of squares} of every (segment, row).
template <typename T, bool CENTER, bool PACKED>
__global__ void __launch_bounds__(kSegmentThreads) rows_forward_moments_kernel(const RowsForward<T> p) {
  __shared__ acc_t<T> scratch[2][1][32];
  const int64_t row = blockIdx.x / p.segments, first = blockIdx.x % p.segments * kSegment<T, kForwardChunks>;
  const Tile<T, PACKED> tile(p.N, first, kSegment<T, kForwardChunks>);
  Pack<T> s[kForwardChunks];
  load_summed(p, tile, row, first, s);
  const auto moments = tile_moments<CENTER>(tile, s, scratch);
  if (threadIdx.x == 0) p.partial[blockIdx.x] = moments;
}

// 2 of 2: every block merges the segments' moments of its row, in the same order, and writes its segment.
template <typename T, bool CENTER, bool PACKED, int FINISH>
__global__ void __launch_bounds__(kSegmentThreads, !kFast<T> ? 3 : kFewBlocks<FINISH == kGated && !PACKED, 1>)
    rows_forward_segment_kernel(const RowsForward<T> p) {
  using A = acc_t<T>;
  __shared__ A scratch[2][1][32];
  // the last ones first, for they may still be in L2
  const int64_t block = gridDim.x - 1 - blockIdx.x, row = block / p.segments;
  const int64_t first = block % p.segments * kSegment<T, kForwardChunks>;
  const Tile<T, PACKED> tile(p.N, first, kSegment<T, kForwardChunks>);
  Pack<T> s[kForwardChunks];
  const bool summed = p.residual != nullptr;
  tile.load(summed ? p.summed + row * p.N + first : p.x + row * p.x_stride + first, s);
  const auto* parts = p.partial + row * p.segments;
  const auto moments = merge_moments<CENTER, kSegment<T, kForwardChunks>, T>(parts, p.segments, p.N, scratch);
  const A rstd = rsqrt(moments.squares / A(p.N) + p.eps);
  if (threadIdx.x == 0 && first == 0) store_statistics(p, row, moments.mean, rstd);
  store_y<FINISH>(p, tile, row, first, 0, s, moments.mean, rstd);
}

// ---- host ----

// workspace(n) gives room for n accumulators
template <typename T, bool CENTER, bool PACKED, int FINISH, bool EACH, typename Workspace>
void launch_rows_forward(RowsForward<T> p, const Device& device, Workspace workspace) {
  const int64_t packs = ceil_div<int64_t>(p.N, kPack<T>);
  const auto resident = [&](auto kernel, int chunks) {
    const dim3 block = row_block(packs, chunks, 128);
    launch(kernel, dim3(ceil_div<int64_t>(p.M, block.y), p.samples), block, device, p);
  };
  // narrow accesses would be of a few neighbouring threads, so they are of as many as there are
  if (packs <= (PACKED ? 2 : 16)) return resident(rows_forward_kernel<T, CENTER, PACKED, FINISH, EACH, false, 1>, 1);
  if constexpr (PACKED || FINISH != kGated) {  // else registers hold no whole row
    constexpr int C = kForwardChunks;
    if (packs <= kResidentThreads * C)
      return resident(rows_forward_kernel<T, CENTER, PACKED, FINISH, EACH, false, C>, C);
    if constexpr (kFast<T> && !EACH) {
      const auto kernel = rows_forward_kernel<T, CENTER, PACKED, FINISH, false, true, C>;
      const int64_t blocks = cluster_of(ceil_div<int64_t>(packs, kSegmentThreads * C));
      const dim3 block = row_block(ceil_div(packs, blocks), C, 128);
      if (packs <= blocks * kResidentThreads * C && resident_clusters(kernel, blocks, block.x, 0) > 0)
        return launch_clusters(kernel, blocks, p.M * blocks, block, 0, device, p);
    }
  }
  p.segments = ceil_div(p.N, kSegment<T, kForwardChunks>);
  p.partial = reinterpret_cast<Moments<acc_t<T>>*>(workspace(p.M * p.segments * 2));
  const dim3 grid(p.M * p.segments);
  launch(rows_forward_moments_kernel<T, CENTER, PACKED>, grid, kSegmentThreads, device, p);
  launch(rows_forward_segment_kernel<T, CENTER, PACKED, FINISH>, grid, kSegmentThreads, device, p);
}

template <bool CENTER, bool EACH, typename T, typename Workspace>
void launch_rows_forward(const RowsForward<T>& p, const Device& device, Workspace workspace) {
  const bool identity = p.affine.activation == Activation::kIdentity, gated = p.gate != nullptr;
  if constexpr (kFast<T>) {
    if (p.packed && gated) return launch_rows_forward<T, CENTER, true, kGated, EACH>(p, device, workspace);
    if (p.packed && identity) return launch_rows_forward<T, CENTER, true, kPlain, EACH>(p, device, workspace);
    if (p.packed) return launch_rows_forward<T, CENTER, true, kActivated, EACH>(p, device, workspace);
  }
  gated ? launch_rows_forward<T, CENTER, false, kGated, EACH>(p, device, workspace)
        : launch_rows_forward<T, CENTER, false, kActivated, EACH>(p, device, workspace);
}

// Of rows that do not fit a block one sample at a time
template <bool CENTER, typename T, typename Workspace>
void rows_forward(const RowsForward<T>& p, const Device& device, Workspace workspace) {
  const bool resident = (p.packed || !p.gate) && p.N <= kResidentThreads * kForwardChunks * kPack<T>;
  each_samples(p.samples, resident ? kMostAside : 1, workspace, [&](int64_t first, int64_t count, auto room) {
    const RowsForward<T> own = p.of_samples(first, count);
    count > 1 ? launch_rows_forward<CENTER, true>(own, device, room)
              : launch_rows_forward<CENTER, false>(own, device, room);
  });
}

}  // namespace normkernels::cuda
