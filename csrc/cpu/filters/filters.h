// The filter family on the CPU: each filter, a row of a contiguous (M, N), is scaled, and centred before or not.
//
// A filter that fits in the first-level cache is taken whole, short ones several at a time; longer ones are swept as
// rows are. What is found of a filter depends on its N alone.
#pragma once

#include <cmath>

#include "cpu/base/registers.h"
#include "cpu/base/sweep.h"
#include "cpu/channels/tiles.h"
#include "cpu/filters/tiles.h"

namespace normkernels {

// Whether so many results are written past the caches: rows of whole lines.
template <class T>
bool worth_nontemporal(int64_t elements, int64_t N) {
  return large<T>(elements) && N * sizeof(T) % 64 == 0;
}

// Whether filters are taken in registers: not those of 16 bits that go 32 elements at a time, which is faster.
template <class T>
bool short_filters(const T*, int64_t N) {
  return in_registers(N) && !(sizeof(T) == 2 && paired_rows<T, T>(N));
}

// x in T, y and dy in D: the same, or 16 bits beside float.
template <class T, class D>
struct FiltersForward {
  using C = compute_t<T>;
  int64_t M, N;
  const T* x;
  const C* gain = nullptr;  // or null
  D* y;                     // may be x
  C* mean = nullptr;        // null without centring
  C* statistic = nullptr;   // rstd, without centring the norm, or null
  double eps = 0;
  bool nontemporal = std::is_same_v<T, D> && worth_nontemporal<D>(M * N, N) && static_cast<const void*>(x) != y;

  static constexpr bool kPrefetch = false;  // the hardware does it as well
  static constexpr bool kRegisters = kPairs<T, D>;
  int64_t group() const { return 1; }

  void measure_rows(int64_t m, int64_t j, int64_t rows, int64_t n, Found<C>& f) const {
    row_moments(x + m * N + j, mean, eps, f, rows, n);
  }
  Moments measure(int64_t m, int64_t j, int64_t n) const {
    Found<C> f;
    measure_rows(m, j, 1, n, f);
    return {static_cast<double>(n), static_cast<double>(f.mean[0]) + f.c[0], f.squares[0]};
  }

  void finish_rows(int64_t m, int64_t rows, Found<C>& f) const {
    C norms[kFilters];
    if (mean) std::copy_n(f.mean, rows, mean + m);
    scale_coefficients(mean, N, eps, gain ? gain + m : nullptr, statistic ? statistic + m : norms, f, rows);
  }
  Found<C> finish(int64_t m, const Moments& total) const {
    Found<C> f;
    f.mean[0] = static_cast<C>(total.mean);
    f.c[0] = static_cast<C>(total.mean - f.mean[0]);
    f.squares[0] = total.m2;
    f.fit = false;  // what several tiles add up to is in double
    finish_rows(m, 1, f);
    return f;
  }

  void write_rows(int64_t m, int64_t j, int64_t rows, int64_t n, const Found<C>& f) const {
    const int64_t at = m * N + j;
    if constexpr (kPairs<T, D>) {
      if (paired_rows<T, D>(n)) return paired_scale(x + at, f, y + at, rows, n, nontemporal && on_line(y + at));
    }
    if constexpr (std::is_same_v<T, D>) {
      const T* const skip = nullptr;
      for (int64_t r = 0; nontemporal && r < rows; r++) {
        const Scale<Same<C>> k = {{f.mean[r]}, {f.a[r]}, {f.c[r]}};
        for_each_tile(at + r * n, at + (r + 1) * n,
                      [&](int64_t i, int64_t m) { scale_nontemporal(x + i, skip, k, y + i, m); });
      }
    }
    if (!nontemporal) scale_rows(x + at, f, y + at, rows, n);
  }
  void write(int64_t m, int64_t j, int64_t n, const Found<C>& f) const { write_rows(m, j, 1, n, f); }
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
  const C *gain, *mean = nullptr, *statistic;  // as for forward
  T* dx;
  C* dgain;  // or null
  bool nontemporal =
      worth_nontemporal<T>(4 * M * N, N);  // nobody reads a weight's gradient before all others are there

  static constexpr bool kPrefetch = false;
  static constexpr bool kRegisters = kPairs<T, D>;
  int64_t group() const { return 1; }

  void measure_rows(int64_t m, int64_t j, int64_t rows, int64_t n, Found<C>& f) const {
    put_means(m, rows, f);
    row_products(dy + m * N + j, x + m * N + j, mean, f, rows, n);
  }
  Pair<double> measure(int64_t m, int64_t j, int64_t n) const {
    Found<C> f;
    measure_rows(m, j, 1, n, f);
    return {f.b[0], f.c[0]};
  }

  void finish_rows(int64_t m, int64_t rows, Found<C>& f) const {
    C along[kFilters];
    for (int64_t r = 0; mean && r < rows; r++) f.shift[r] = shift(m + r);
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

  void write_rows(int64_t m, int64_t j, int64_t rows, int64_t n, const Found<C>& f) const {
    const int64_t at = m * N + j;
    if constexpr (kPairs<T, D>) {
      if (paired_rows<T, D>(n))
        return paired_blend(dy + at, x + at, f, dx + at, rows, n, nontemporal && on_line(dx + at));
    }
    bool lines = nontemporal;
    for (int64_t r = 0; r < rows; r++) lines &= folds(f.rstd[r]);
    for (int64_t r = 0; lines && r < rows; r++) {
      const Blend<Same<C>> k = folded(f, r);
      for_each_tile(at + r * n, at + (r + 1) * n,
                    [&](int64_t i, int64_t m) { blend_nontemporal(dy + i, x + i, k, dx + i, m); });
    }
    if (!lines) blend_rows(dy + at, x + at, f, dx + at, rows, n);
  }
  void write(int64_t m, int64_t j, int64_t n, const Found<C>& f) const { write_rows(m, j, 1, n, f); }

  // What the mean that was kept lost in rounding, as xhat takes it: found again for a row far from 0
  C shift(int64_t m) const {
    if (!mean || std::fabs(mean[m]) * statistic[m] <= kNear) return C(0);
    double left = 0;
    for_each_tile(m * N, (m + 1) * N, [&](int64_t j, int64_t n) { left += sum_about(x + j, mean[m], n); });
    return static_cast<C>(-left / static_cast<double>(N) * statistic[m]);
  }

 private:
  void put_means(int64_t m, int64_t rows, Found<C>& f) const {
    for (int64_t r = 0; r < rows; r++) f.mean[r] = mean ? mean[m + r] : C(0);
  }
};

// Short ones, in registers
template <class T>
void register_filters(const FiltersForward<T, T>& a, int64_t begin, int64_t end);
template <class T>
void register_filters(const FiltersBackward<T, T>& a, int64_t begin, int64_t end);

template <class Sweep>
void take_filters(const Sweep& a, int64_t m, int64_t count) {
  Found<typename Sweep::C> f;
  a.measure_rows(m, 0, count, a.N, f);
  a.finish_rows(m, count, f);
  a.write_rows(m, 0, count, a.N, f);
}

constexpr int64_t kWhole = 4 * kTile;

template <class Sweep>
void sweep_blocks(const Sweep& a, int64_t begin, int64_t end) {
  if constexpr (Sweep::kRegisters)
    if (short_filters(a.x, a.N)) return register_filters(a, begin, end);
  const int64_t rows = std::clamp<int64_t>(2 * kStep / a.N, 1, kFilters);
  for (int64_t m = begin; m < end; m += rows) take_filters(a, m, std::min(rows, end - m));
  nontemporal_fence();
}

template <class Sweep>
void sweep_filters(const Sweep& a, int64_t begin, int64_t end) {
  a.N > kWhole ? sweep_rows(a, begin, end) : sweep_blocks(a, begin, end);
}

template <class Sweep>
void filters(const Sweep& a) {
  if (a.N > kWhole) return sweep(a);
  parallel_for(0, a.M, grain(a.N), [&](int64_t begin, int64_t end) { sweep_blocks(a, begin, end); });
}

}  // namespace normkernels
