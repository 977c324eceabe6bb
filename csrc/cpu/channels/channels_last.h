// Channels that lie last, forward: the moments of an image's columns, then y.
#pragma once

#include "cpu/channels/columns.h"

namespace normkernels {

constexpr int64_t kRounded = 16;  // lines of a small image that are summed in its compute type

// The mean and m2 of every column over a segment of lines.
template <class T>
void column_moments(const T* x, int64_t columns, int64_t lines, bool far, double eps, double* mean, double* m2) {
  using C = compute_t<T>;
  if (lines == 0) return;  // of an image smaller than a line, which is all rest
  Scratch<C> buffer(3 * columns);
  C *about = buffer.data(), *a = about + columns, *b = a + columns;
  load_tile(x, about, columns);
  for (int64_t first = 0; first < lines; first += kBlock) {
    const int64_t rows = std::min(kBlock, lines - first);
    const auto add = [&] {
      each_band<C>(columns, rows, far, [&](int64_t line, int64_t count, int64_t j, int64_t n, int64_t ahead) {
        add_columns_about(x + (first + line) * columns + j, columns, count, ahead, about + j, a + j, b + j, n);
      });
    };
    add();
    if (recentre(rows, about, a, b, columns)) add();
    merge_columns(first, rows, about, a, b, mean, m2, columns);
  }
  if (!std::all_of(m2, m2 + columns, [=](double squares) { return squares_fit<T>(squares, lines, eps); }))
    wide_columns(x, lines, mean, m2, columns);
}

// The moments of an image's columns: a row for each segment, and one for what is left.
struct ColumnTable {
  const Lines& lines;
  Scratch<double> counts, means, squares;

  explicit ColumnTable(const Lines& l)
      : lines(l), counts(l.segments + 1), means(l.columns * counts.size()), squares(means) {}

  // f(count, column's mean, its m2, channel) for all that was measured
  template <class F>
  void each(const F& f) const {
    for (int64_t row = 0; row <= lines.segments; row++) {
      const int64_t at = row * lines.columns, columns = row < lines.segments ? lines.columns : lines.rest;
      if (counts[row] == 0) continue;
      lines.each_column(columns, [&](int64_t j, int64_t c) { f(counts[row], means[at + j], squares[at + j], c); });
    }
  }
};

// mean and var of every group of image n
template <class T>
void pool(const Forward<T>& a, int64_t n, const ColumnTable& table) {
  const int64_t G = a.of.grid.G;
  Scratch<double> mean(a.of.grid.C), m2(a.of.grid.C), pooled(G);
  const auto groups = [&](const Scratch<double>& of, const auto& f) {
    for (int64_t g = 0; g < G; g++) {
      double total = 0;
      for (int64_t d = 0; d < a.of.grid.channels(); d++) total += of[g * a.of.grid.channels() + d];
      f(g, total / a.of.grid.count());
    }
  };
  table.each([&](double k, double m, double, int64_t c) { mean[c] += k * m; });
  groups(mean, [&](int64_t g, double value) { pooled[g] = value; });
  for (int64_t g = 0; g < G; g++) std::fill_n(mean.begin() + g * a.of.grid.channels(), a.of.grid.channels(), pooled[g]);
  table.each([&](double k, double m, double q, int64_t c) { m2[c] += q + k * (m - mean[c]) * (m - mean[c]); });
  groups(m2, [&](int64_t g, double value) { a.keep(n * G + g, pooled[g], value); });
}

// The same of a small image, whose columns need no moments of their own.
template <class T>
bool measure_small(const Forward<T>& a, int64_t image) {
  using C = compute_t<T>;
  const Grid& g = a.of.grid;
  const int64_t D = g.channels();
  const T* const x = a.of.x + image * g.S * g.C;
  Scratch<C> first(g.G);
  const int64_t channels = std::min(kFirst, D), positions = std::min(kFirst / channels, g.S);
  for (int64_t s = 0; s < positions; s++)
    for (int64_t k = 0; k < g.G; k++)
      for (int64_t d = 0; d < channels; d++) first[k] += load(x[s * g.C + k * D + d]);
  for (C& value : first) value /= static_cast<C>(channels * positions);
  return keep_moments(a, image * g.G, first, [&](const Scratch<C>& of_groups) {
    Raw<C> about(g.C);
    for (int64_t k = 0; k < g.G; k++) std::fill_n(&about[k * D], D, of_groups[k]);
    Scratch<C> of_rows(2 * g.C);
    C *p = of_rows.data(), *q = p + g.C;
    const auto add_rows = [&](int64_t row) {
      each_band<C>(g.C, std::min(kRounded, g.S - row), far_away<T>(g),
                   [&](int64_t line, int64_t n, int64_t j, int64_t m, int64_t ahead) {
                     add_columns_about(x + (row + line) * g.C + j, g.C, n, ahead, &about[j], p + j, q + j, m);
                   });
    };
    Scratch<Pair<double>> sums(g.G);
    if (g.S <= kRounded) {
      add_rows(0);
      add_groups(p, q, g.G, D, sums.data());
    } else {
      Scratch<double> totals(2 * g.C);
      for (int64_t row = 0; row < g.S; row += kRounded) {
        add_rows(row);
        drain(p, totals.data(), totals.size());
      }
      add_groups(totals.data(), &totals[g.C], g.G, D, sums.data());
    }
    return sums;
  });
}

template <class T>
void measure(const Forward<T>& a, const Lines& lines, int64_t n, bool parallel) {
  if (lines.run == 1 && a.of.grid.S <= kFewPositions && measure_small(a, n)) return;
  ColumnTable table(lines);
  const T* image = a.of.x + n * a.of.grid.S * a.of.grid.C;
  const auto row = [&](int64_t i, const T* x, int64_t columns, int64_t count) {
    table.counts[i] = static_cast<double>(count);
    column_moments(x, columns, count, far_away<T>(a.of.grid), a.of.eps, &table.means[i * lines.columns],
                   &table.squares[i * lines.columns]);
  };
  each(parallel, lines.segments,
       [&](int64_t s) { row(s, image + lines.first(s) * lines.columns, lines.columns, lines.lines(s)); });
  if (lines.rest) row(lines.segments, image + lines.whole * lines.columns, lines.rest, 1);
  pool(a, n, table);
}

// Whether an image lies in the first caches, so that its y and dx are written a band of columns after the other.
template <class T>
bool by_bands(const Channels<T>& of, const Lines& lines) {
  const Grid& g = of.grid;
  const bool small = lines.single() && g.S <= kFewPositions && g.S * g.C <= kSmallImage && g.C % kBand == 0;
  return small && of.plain() && !of.skip;
}

template <class T>
void forward_channels_last(const Forward<T>& a, int64_t run = 1) {
  const Grid& g = a.of.grid;
  const Lines lines(g, run);
  const bool nontemporal = large<T>(g.N * g.C * g.S) && g.C * sizeof(T) % 64 == 0;
  share(g.N, g.N * g.S * g.C, true, [&](int64_t n, bool parallel) {
    if (a.training) {
      measure(a, lines, n, parallel);
      if (a.rule) a.rule(n * g.G, g.G);
    }
    if (!a.y) return;
    if constexpr (std::is_same_v<T, float>) {
      if (by_bands(a.of, lines) && !nontemporal) {
        const ColumnScale<float> scale(a.of, lines, lines.columns, n);
        const int64_t at = n * g.S * g.C;
        return scale_columns(a.of.x + at, scale.at(0), a.y + at, g.S, g.C);
      }
    }
    const ColumnScale<compute_t<T>> scale(a.of, lines, wide(lines), n);
    each_piece(parallel, g, wide(lines), [&](int64_t offset, int64_t j, int64_t count) {
      const int64_t at = n * g.S * g.C + offset;
      a.of.write(at, scale.at(j), a.y + at, count, nontemporal);
    });
  });
}

}  // namespace normkernels
