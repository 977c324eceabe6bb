// The row family on the CPU, backward: dx, dweight and dbias in one sweep over x and dy.
//
// Rows are taken in blocks whose number depends on the shape alone; a block sums its parameter gradients row by row into
// one line of a table, and the lines are added in order: no atomics, and the same bits for any number of threads.
#pragma once

#include <memory>
#include <vector>

#include "threads.h"
#include "tiles.h"

namespace normkernels {

struct Sums {
  double g = 0, g_xhat = 0;
};

template <class T>
struct RowsBackward {
  using C = compute_t<T>;
  int64_t M, N;
  const T* dy;
  int64_t dy_stride;
  const T* dsummed;  // or null
  int64_t dsummed_stride;
  const T* x;
  int64_t x_stride;
  Affine<C> affine;
  const C *mean, *rstd;  // mean: null without centring
  T* dx;
  C *dweight, *dbias;  // (blocks, N) tables, or null

  int64_t blocks() const { return std::clamp<int64_t>(M / 32, 1, 64); }
  int64_t first_row(int64_t block) const { return block * M / blocks(); }

  // xhat and du = dy * act'(u) of one tile
  NK_INLINE void load_tiles(int64_t m, int64_t j, C* xhat, C* du, int64_t n) const {
    load_tile(x + m * x_stride + j, xhat, n);
    normalise(xhat, mean ? mean[m] : C(0), rstd[m], n);
    load_tile(dy + m * dy_stride + j, du, n);
    if (affine.activation == Activation::identity) return;
    alignas(64) C u[kTile];
    affine.apply(xhat, u, j, n);
    times_derivative(affine.activation, affine.slope, u, du, n);
  }

  // g = du * weight
  NK_INLINE C weight(int64_t j) const { return affine.weight ? affine.weight[j] : C(1); }

  NK_INLINE void add_sums(const C* xhat, const C* du, int64_t j, int64_t n, Sums& total) const {
    C g = 0, g_xhat = 0;
    if (affine.weight) {
      const C* w = affine.weight + j;
#pragma omp simd reduction(+ : g, g_xhat)
      for (int64_t i = 0; i < n; i++) g += du[i] * w[i], g_xhat += du[i] * w[i] * xhat[i];
    } else {
#pragma omp simd reduction(+ : g, g_xhat)
      for (int64_t i = 0; i < n; i++) g += du[i], g_xhat += du[i] * xhat[i];
    }
    total.g += g;
    total.g_xhat += g_xhat;
  }

  NK_INLINE Sums sums(int64_t m, int64_t begin, int64_t end, C* xhat, C* du) const {
    Sums total;
    for (int64_t j = begin; j < end; j += kTile) {
      const int64_t n = std::min(kTile, end - j);
      load_tiles(m, j, xhat, du, n);
      add_sums(xhat, du, j, n, total);
    }
    return total;
  }

  // dx = rstd * (g - mean(g) - xhat * mean(g * xhat)) + dsummed; dweight += du * xhat; dbias += du
  NK_INLINE void write(int64_t m, int64_t j, const Sums& total, const C* xhat, C* du, int64_t n, int64_t block) const {
    if (dweight) {
      C* sum = dweight + block * N + j;
#pragma omp simd
      for (int64_t i = 0; i < n; i++) sum[i] += du[i] * xhat[i];
    }
    if (dbias) {
      C* sum = dbias + block * N + j;
#pragma omp simd
      for (int64_t i = 0; i < n; i++) sum[i] += du[i];
    }
    const C a = mean ? static_cast<C>(total.g / N) : C(0), b = static_cast<C>(total.g_xhat / N), r = rstd[m];
    if (affine.weight) {
      const C* w = affine.weight + j;
#pragma omp simd
      for (int64_t i = 0; i < n; i++) du[i] = r * (du[i] * w[i] - a - xhat[i] * b);
    } else {
#pragma omp simd
      for (int64_t i = 0; i < n; i++) du[i] = r * (du[i] - a - xhat[i] * b);
    }
    if (dsummed) {
      const T* d = dsummed + m * dsummed_stride + j;
#pragma omp simd
      for (int64_t i = 0; i < n; i++) du[i] += load(d[i]);
    }
    store_tile(du, dx + m * N + j, n);
  }

  NK_INLINE void write_range(int64_t m, int64_t begin, int64_t end, const Sums& total, C* xhat, C* du,
                             int64_t block) const {
    for (int64_t j = begin; j < end; j += kTile) {
      const int64_t n = std::min(kTile, end - j);
      load_tiles(m, j, xhat, du, n);
      write(m, j, total, xhat, du, n, block);
    }
  }

  void clear(int64_t block) const {
    if (dweight) std::fill_n(dweight + block * N, N, C(0));
    if (dbias) std::fill_n(dbias + block * N, N, C(0));
  }
};

template <class T>
NK_CLONES void backward_block(const RowsBackward<T>& a, int64_t block) {
  alignas(64) compute_t<T> xhat[kTile], du[kTile];
  a.clear(block);
  for (int64_t m = a.first_row(block); m < a.first_row(block + 1); m++) {
    Sums total;
    for (int64_t j = 0; j < a.N; j += kSegment) {
      const Sums part = a.sums(m, j, std::min(a.N, j + kSegment), xhat, du);
      total.g += part.g;
      total.g_xhat += part.g_xhat;
    }
    if (a.N <= kTile)
      a.write(m, 0, total, xhat, du, a.N, block);  // the tiles still hold the row
    else
      a.write_range(m, 0, a.N, total, xhat, du, block);
  }
}

template <class T>
NK_CLONES void segment_sums(const RowsBackward<T>& a, int64_t m, int64_t segment, Sums& part) {
  alignas(64) compute_t<T> xhat[kTile], du[kTile];
  part = a.sums(m, segment * kSegment, std::min(a.N, (segment + 1) * kSegment), xhat, du);
}

template <class T>
NK_CLONES void backward_segment(const RowsBackward<T>& a, int64_t m, int64_t segment, const Sums& total, int64_t block) {
  alignas(64) compute_t<T> xhat[kTile], du[kTile];
  a.write_range(m, segment * kSegment, std::min(a.N, (segment + 1) * kSegment), total, xhat, du, block);
}

template <class T>
void backward(const RowsBackward<T>& a) {
  if (!split_rows(a.M, a.N)) {
    for_each(a.blocks(), [&](int64_t block) { backward_block(a, block); });
    return;
  }
  std::vector<Sums> parts(segments(a.N));
  for (int64_t block = 0; block < a.blocks(); block++) {
    a.clear(block);
    for (int64_t m = a.first_row(block); m < a.first_row(block + 1); m++) {
      for_each(parts.size(), [&](int64_t s) { segment_sums(a, m, s, parts[s]); });
      Sums total;
      for (const Sums& part : parts) total.g += part.g, total.g_xhat += part.g_xhat;
      for_each(parts.size(), [&](int64_t s) { backward_segment(a, m, s, total, block); });
    }
  }
}

// out[j] = sum of table[p][j] over the lines p, in order
template <class C, class W>
NK_CLONES void sum_lines(const C* table, int64_t lines, int64_t N, int64_t begin, int64_t end, W* out) {
  alignas(64) C sum[kTile];
  for (int64_t j = begin; j < end; j += kTile) {
    const int64_t n = std::min(kTile, end - j);
    std::copy(table + j, table + j + n, sum);
    for (int64_t p = 1; p < lines; p++) {
      const C* line = table + p * N + j;
#pragma omp simd
      for (int64_t i = 0; i < n; i++) sum[i] += line[i];
    }
    store_tile(sum, out + j, n);
  }
}

}  // namespace normkernels
