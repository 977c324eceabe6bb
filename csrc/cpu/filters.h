// The filter family on the CPU: each filter, a row of a contiguous (M, N), is scaled, and centred before or not.
//
// A filter of a tile at most is taken with its neighbours, in blocks that stay in the first-level cache; longer ones
// are swept as rows are. What is found of a filter depends on its N alone.
#pragma once

#include "filter_tiles.h"
#include "sweep.h"

namespace normkernels {

// x in T, y and dy in D: the same, or 16 bits beside float.
template <class T, class D>
struct FiltersForward {
  using C = compute_t<T>;
  int64_t M, N;
  const T* x;
  const C* gain;        // or null
  D* y;                 // may be x
  C *mean, *statistic;  // mean: null without centring; statistic: rstd, without centring the norm, or null
  double eps;
  bool stream = sizeof(D) >= 4 && large<D>(M * N) && static_cast<const void*>(x) != y;

  int64_t group() const { return 1; }
  void prefetch(int64_t m, int64_t j, int64_t n) const { prefetch_tile(x + m * N + j, n); }

  void measure_rows(int64_t m, int64_t j, int64_t rows, int64_t n, Found<C>& f) const {
    row_moments(x + m * N + j, mean, f, rows, n);
  }
  Moments measure(int64_t m, int64_t j, int64_t n) const {
    Found<C> f;
    measure_rows(m, j, 1, n, f);
    return {static_cast<double>(n), f.mean[0], f.a[0]};
  }

  void finish_rows(int64_t m, int64_t rows, Found<C>& f) const {
    C norms[kFilters];
    if (mean) std::copy_n(f.mean, rows, mean + m);
    scale_coefficients(mean, N, eps, gain ? gain + m : nullptr, statistic ? statistic + m : norms, f, rows);
  }
  Found<C> finish(int64_t m, const Moments& total) const {
    Found<C> f;
    f.mean[0] = static_cast<C>(total.mean);
    f.a[0] = static_cast<C>(total.m2);
    finish_rows(m, 1, f);
    return f;
  }

  // n values of rows from row m and column j on, which are rows of f from first on
  void write_rows(int64_t m, int64_t j, int64_t rows, int64_t n, const Found<C>& f, int64_t first) const {
    alignas(64) D out[kTile];
    const int64_t at = m * N + j;
    scale_rows(x + at, f, first, stream ? out : y + at, rows, n);
    if (stream) stream_bytes(out, y + at, rows * n * sizeof(D));
  }
  void write(int64_t m, int64_t j, int64_t n, const Found<C>& f) const { write_rows(m, j, 1, n, f, 0); }
};

// The sums of dy (x - mean) and of dy
inline void merge(Pair<double>& a, const Pair<double>& part) {
  a.a += part.a;
  a.b += part.b;
}

template <class T, class D>
struct FiltersBackward {
  using C = compute_t<T>;
  int64_t M, N;
  const D* dy;
  const T* x;
  const C *gain, *mean, *statistic;  // as for forward
  T* dx;
  C* dgain;  // or null
  bool stream = sizeof(T) >= 4 && large<T>(M * N);

  int64_t group() const { return 1; }
  void prefetch(int64_t m, int64_t j, int64_t n) const {
    prefetch_tile(x + m * N + j, n);
    prefetch_tile(dy + m * N + j, n);
  }

  void measure_rows(int64_t m, int64_t j, int64_t rows, int64_t n, Found<C>& f) const {
    put_means(m, rows, f);
    row_products(dy + m * N + j, x + m * N + j, f, rows, n);
  }
  Pair<double> measure(int64_t m, int64_t j, int64_t n) const {
    Found<C> f;
    measure_rows(m, j, 1, n, f);
    return {f.b[0], f.c[0]};
  }

  void finish_rows(int64_t m, int64_t rows, Found<C>& f) const {
    C along[kFilters];
    blend_coefficients(mean, N, gain ? gain + m : nullptr, statistic + m, dgain ? dgain + m : along, f, rows);
  }
  Found<C> finish(int64_t m, const Pair<double>& total) const {
    Found<C> f;
    put_means(m, 1, f);
    f.b[0] = static_cast<C>(total.a);
    f.c[0] = static_cast<C>(total.b);
    finish_rows(m, 1, f);
    return f;
  }

  void write_rows(int64_t m, int64_t j, int64_t rows, int64_t n, const Found<C>& f, int64_t first) const {
    alignas(64) T out[kTile];
    const int64_t at = m * N + j;
    blend_rows(dy + at, x + at, f, first, stream ? out : dx + at, rows, n);
    if (stream) stream_bytes(out, dx + at, rows * n * sizeof(T));
  }
  void write(int64_t m, int64_t j, int64_t n, const Found<C>& f) const { write_rows(m, j, 1, n, f, 0); }

 private:
  void put_means(int64_t m, int64_t rows, Found<C>& f) const {
    for (int64_t r = 0; r < rows; r++) f.mean[r] = mean ? mean[m + r] : C(0);
  }
};

template <class Sweep>
void sweep_blocks(const Sweep& a, int64_t begin, int64_t end) {
  const int64_t rows = std::clamp<int64_t>(kTile / a.N, 1, kFilters), few = std::max<int64_t>(1, kStep / a.N);
  Found<typename Sweep::C> f;
  for (int64_t first = begin; first < end; first += rows) {
    const int64_t last = std::min(end, first + rows);
    a.measure_rows(first, 0, last - first, a.N, f);
    a.finish_rows(first, last - first, f);
    for (int64_t m = first; m < last; m += few) {
      const int64_t count = std::min(few, last - m);
      if (m + rows + count <= end) a.prefetch(m + rows, 0, count * a.N);
      a.write_rows(m, 0, count, a.N, f, m - first);
    }
  }
  stream_fence();
}

template <class Sweep>
void sweep_filters(const Sweep& a, int64_t begin, int64_t end) {
  a.N > kTile ? sweep_rows(a, begin, end) : sweep_blocks(a, begin, end);
}

template <class Sweep>
void filters(const Sweep& a) {
  if (a.N > kTile) return sweep(a);
  parallel_for(0, a.M, grain(a.N), [&](int64_t begin, int64_t end) { sweep_blocks(a, begin, end); });
}

}  // namespace normkernels
