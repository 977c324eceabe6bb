// The row family on the CPU, forward: normalise each row of an (M, N) tensor, one read of the data.
//
// A row is walked in tiles that stay in the first-level cache as the compute type. Tiles merge into segments and segments
// into rows in an order fixed by N, so neither the other rows nor the number of threads changes a bit.
#pragma once

#include <vector>

#include "threads.h"
#include "tiles.h"

namespace normkernels {

template <class T>
struct RowsForward {
  using C = compute_t<T>;
  int64_t M, N;
  const T* x;
  int64_t x_stride;
  const T* residual;  // or null
  int64_t residual_stride;
  Affine<C> affine;
  T *y, *summed;  // summed: null without residual
  C *mean, *rstd;
  double eps;

  // s = x + residual, rounded to T; s is what is normalised.
  NK_INLINE void load_input(int64_t m, int64_t j, C* tile, int64_t n) const {
    load_tile(x + m * x_stride + j, tile, n);
    if (!residual) return;
    const T* r = residual + m * residual_stride + j;
    T* s = summed + m * N + j;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
      s[i] = store<T>(tile[i] + load(r[i]));
      tile[i] = load(s[i]);
    }
  }

  template <bool kCenter>
  NK_INLINE Moments moments(int64_t m, int64_t begin, int64_t end, C* tile) const {
    Moments total;
    for (int64_t j = begin; j < end; j += kTile) {
      const int64_t n = std::min(kTile, end - j);
      load_input(m, j, tile, n);
      merge(total, tile_moments<kCenter>(tile, n));
    }
    return total;
  }

  NK_INLINE void finish(int64_t m, const Moments& total) const {
    if (mean) mean[m] = static_cast<C>(total.mean);
    rstd[m] = static_cast<C>(1 / std::sqrt(total.m2 / static_cast<double>(N) + eps));
  }

  // y from the tile that holds s
  NK_INLINE void write(int64_t m, int64_t j, C* tile, int64_t n) const {
    normalise(tile, mean ? mean[m] : C(0), rstd[m], n);
    affine.apply(tile, tile, j, n);
    activate(affine.activation, affine.slope, tile, n);
    store_tile(tile, y + m * N + j, n);
  }

  NK_INLINE void write_range(int64_t m, int64_t begin, int64_t end, C* tile) const {
    const T* s = residual ? summed + m * N : x + m * x_stride;
    for (int64_t j = begin; j < end; j += kTile) {
      const int64_t n = std::min(kTile, end - j);
      load_tile(s + j, tile, n);
      write(m, j, tile, n);
    }
  }
};

template <bool kCenter, class T>
NK_CLONES void forward_rows(const RowsForward<T>& a, int64_t begin, int64_t end) {
  alignas(64) compute_t<T> tile[kTile];
  for (int64_t m = begin; m < end; m++) {
    Moments total;
    for (int64_t j = 0; j < a.N; j += kSegment)
      merge(total, a.template moments<kCenter>(m, j, std::min(a.N, j + kSegment), tile));
    a.finish(m, total);
    if (a.N <= kTile)
      a.write(m, 0, tile, a.N);  // the tile still holds the row
    else
      a.write_range(m, 0, a.N, tile);
  }
}

template <bool kCenter, class T>
NK_CLONES void segment_moments(const RowsForward<T>& a, int64_t m, int64_t segment, Moments& part) {
  alignas(64) compute_t<T> tile[kTile];
  part = a.template moments<kCenter>(m, segment * kSegment, std::min(a.N, (segment + 1) * kSegment), tile);
}

template <class T>
NK_CLONES void write_segment(const RowsForward<T>& a, int64_t m, int64_t segment) {
  alignas(64) compute_t<T> tile[kTile];
  a.write_range(m, segment * kSegment, std::min(a.N, (segment + 1) * kSegment), tile);
}

template <bool kCenter, class T>
void forward(const RowsForward<T>& a) {
  if (!split_rows(a.M, a.N)) {
    parallel_for(0, a.M, grain(a.N), [&](int64_t begin, int64_t end) { forward_rows<kCenter>(a, begin, end); });
    return;
  }
  std::vector<Moments> parts(segments(a.N));
  for (int64_t m = 0; m < a.M; m++) {
    for_each(parts.size(), [&](int64_t s) { segment_moments<kCenter>(a, m, s, parts[s]); });
    Moments total;
    for (const Moments& part : parts) merge(total, part);
    a.finish(m, total);
    for_each(parts.size(), [&](int64_t s) { write_segment(a, m, s); });
  }
}

}  // namespace normkernels
