// The row family on the CPU, forward: normalise each row of an (M, N) tensor, one read of the data.
//
// A row is walked in tiles that stay in the first-level cache. Tiles merge into segments and segments into rows in an
// order fixed by N, so neither the other rows nor the number of threads changes a bit.
#pragma once

#include <cmath>
#include <utility>
#include <vector>

#include "activations.h"
#include "threads.h"
#include "tiles.h"

namespace normkernels {

// weight + offset and bias in the compute type, null where absent, and what follows them.
template <class C>
struct Affine {
  const C *weight, *bias;
  Activation activation;
  C slope;

  Columns<C> columns(C mean, C rstd, int64_t j) const {
    return {mean, rstd, weight ? weight + j : nullptr, bias ? bias + j : nullptr};
  }
};

template <class T>
struct RowsForward {
  using C = compute_t<T>;
  int64_t M, N;
  const T* x;
  int64_t x_stride;
  const T* residual;  // or null
  int64_t residual_stride;
  Affine<C> affine;
  T *y, *summed;   // summed: null without residual
  C *mean, *rstd;  // mean: null without centring
  double eps;
  bool stream = sizeof(T) >= 4 && large<T>(M * N);  // in 16 bits the copy of each tile costs more than it saves

  // What is normalised: x, or s = x + residual rounded to T.
  const T* input(int64_t m) const { return residual ? summed + m * N : x + m * x_stride; }

  Moments moments(int64_t m, int64_t j, int64_t n) const {
    if (residual) add_tiles(x + m * x_stride + j, residual + m * residual_stride + j, summed + m * N + j, n);
    return mean ? centred_moments(input(m) + j, n) : uncentred_moments(input(m) + j, n);
  }

  void finish(int64_t m, const Moments& total) const {
    if (mean) mean[m] = static_cast<C>(total.mean);
    rstd[m] = static_cast<C>(1 / std::sqrt(total.m2 / static_cast<double>(N) + eps));
  }

  void write(int64_t m, int64_t j, int64_t n) const {
    alignas(64) C u[kTile];
    alignas(64) T out[kTile];
    const Columns<C> columns = affine.columns(mean ? mean[m] : C(0), rstd[m], j);
    T* const target = stream ? out : y + m * N + j;
    if (affine.activation == Activation::identity) {
      affine_tile(input(m) + j, columns, target, n);
    } else {
      affine_tile(input(m) + j, columns, u, n);
      activate(affine.activation, affine.slope, u, n);
      store_tile(u, target, n);
    }
    if (stream) stream_bytes(out, y + m * N + j, n * sizeof(T));
  }
};

// Rows are taken in groups that fit in the second-level cache; weight and bias tiles serve a whole group.
template <class T>
void forward_rows(const RowsForward<T>& a, int64_t begin, int64_t end) {
  const int64_t rows = group_rows(a.N * sizeof(T));
  for (int64_t first = begin; first < end; first += rows) {
    const int64_t last = std::min(end, first + rows);
    for (int64_t m = first; m < last; m++) {
      Moments row, segment;
      for_each_tile(0, a.N, [&](int64_t j, int64_t n) {
        merge(segment, a.moments(m, j, n));
        if ((j + n) % kSegment == 0 || j + n == a.N) merge(row, std::exchange(segment, {}));
      });
      a.finish(m, row);
    }
    for_each_step(0, a.N, [&](int64_t j, int64_t n) {
      for (int64_t m = first; m < last; m++) {
        if (m + rows < end) prefetch_tile(a.x + (m + rows) * a.x_stride + j, n);
        a.write(m, j, n);
      }
    });
  }
  stream_fence();
}

// Shares one long row among the threads.
template <class T>
void forward_split(const RowsForward<T>& a, int64_t m) {
  std::vector<Moments> parts(segments(a.N));
  for_each_segment(a.N, [&](int64_t s, int64_t begin, int64_t end) {
    for_each_tile(begin, end, [&](int64_t j, int64_t n) { merge(parts[s], a.moments(m, j, n)); });
  });
  Moments row;
  for (const Moments& part : parts) merge(row, part);
  a.finish(m, row);
  for_each_segment(a.N, [&](int64_t, int64_t begin, int64_t end) {
    for_each_tile(begin, end, [&](int64_t j, int64_t n) { a.write(m, j, n); });
    stream_fence();
  });
}

template <class T>
void forward(const RowsForward<T>& a) {
  if (split_rows(a.M, a.N)) {
    for (int64_t m = 0; m < a.M; m++) forward_split(a, m);
  } else {
    parallel_for(0, a.M, grain(a.N), [&](int64_t begin, int64_t end) { forward_rows(a, begin, end); });
  }
}

}  // namespace normkernels
