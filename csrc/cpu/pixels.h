// Channels that lie last: x is (N, S, C), and every image has statistics of its own (a batch comes as one long image).
//
// Pixels are folded: several make one line of whole bands of columns, whatever the number of channels. A line's columns
// keep their own sums; only the rule adds up the columns of a channel, and the channels of a group.
#pragma once

#include <numeric>

#include "channels.h"

namespace normkernels {

constexpr int64_t kBlock = 32;  // lines that are summed before their sums are merged

// The lines of one image, and their segments: what one thread sums.
struct Lines {
  int64_t columns, whole, rest;  // whole lines, and the columns of a last one
  int64_t segments;

  explicit Lines(const Grid& g) {
    const int64_t whole_bands = kBand / std::gcd(g.C, kBand), fold = whole_bands * g.C > 2048 ? 1 : whole_bands;
    columns = fold * g.C;
    whole = g.S / fold;
    rest = g.S % fold * g.C;
    segments = std::clamp<int64_t>(g.S * g.C >> 18, 1, 64);
  }
  int64_t first(int64_t segment) const { return segment * whole / segments; }
  int64_t lines(int64_t segment) const { return first(segment + 1) - first(segment); }
};

// f(column, channel) for n columns of a line, in order
template <class F>
void each_column(int64_t n, int64_t C, const F& f) {
  for (int64_t j = 0; j < n; j += C)
    for (int64_t c = 0; c < C; c++) f(j + c, c);
}

// f(first line, lines, first column, n, elements ahead) for a block of lines, a few lines of a band at a time
template <class F>
void each_band(int64_t columns, int64_t lines, const F& f) {
  const int64_t few = std::clamp<int64_t>(2048 / columns, 4, kBlock), ahead = columns > kBand ? 2 * few * columns : 0;
  for (int64_t line = 0; line < lines; line += few)
    for (int64_t j = 0; j < columns; j += kBand)
      f(line, std::min(few, lines - line), j, std::min(kBand, columns - j), ahead);
}

// The mean and m2 of every column over a segment of lines.
template <class T>
void column_moments(const T* x, int64_t columns, int64_t lines, double* mean, double* m2) {
  using C = compute_t<T>;
  std::vector<C> buffer(3 * columns);
  C *about = buffer.data(), *a = about + columns, *b = a + columns;
  load_tile(x, about, columns);
  for (int64_t first = 0; first < lines; first += kBlock) {
    const int64_t rows = std::min(kBlock, lines - first);
    const auto add = [&] {
      each_band(columns, rows, [&](int64_t line, int64_t count, int64_t j, int64_t n, int64_t ahead) {
        add_columns_about(x + (first + line) * columns + j, columns, count, ahead, about + j, a + j, b + j, n);
      });
    };
    add();
    if (recentre(rows, about, a, b, columns)) add();
    merge_columns(first, rows, about, a, b, mean, m2, columns);
  }
}

// The moments of an image's columns: a row for each segment, and one for what is left.
struct ColumnTable {
  int64_t columns, C;
  std::vector<double> counts, means, squares;

  ColumnTable(const Lines& l, int64_t channels)
      : columns(l.columns), C(channels), counts(l.segments + 1), means(columns * counts.size()), squares(means) {}

  // f(count, column's mean, its m2, channel) for all that was measured
  template <class F>
  void each(const F& f) const {
    for (size_t row = 0; row < counts.size(); row++) {
      if (counts[row] == 0) continue;
      const int64_t at = row * columns;
      each_column(row + 1 < counts.size() ? columns : rest, C,
                  [&](int64_t j, int64_t c) { f(counts[row], means[at + j], squares[at + j], c); });
    }
  }
  int64_t rest = 0;  // columns of the last row
};

// mean and var of every group of image n
template <class T>
void pool(const Forward<T>& a, int64_t n, const ColumnTable& table) {
  const int64_t G = a.grid.G;
  const double count = a.grid.count();
  std::vector<double> mean(a.grid.C), m2(a.grid.C), pooled(G);
  const auto groups = [&](const std::vector<double>& of, const auto& f) {
    for (int64_t g = 0; g < G; g++) {
      double total = 0;
      for (int64_t d = 0; d < a.grid.channels(); d++) total += of[g * a.grid.channels() + d];
      f(g, total / count);
    }
  };
  table.each([&](double k, double m, double, int64_t c) { mean[c] += k * m; });
  groups(mean, [&](int64_t g, double value) { pooled[g] = value; });
  for (int64_t c = 0; c < a.grid.C; c++) mean[c] = pooled[c / a.grid.channels()];
  table.each([&](double k, double m, double q, int64_t c) { m2[c] += q + k * (m - mean[c]) * (m - mean[c]); });
  groups(m2, [&](int64_t g, double value) {
    a.mean[n * G + g] = static_cast<compute_t<T>>(pooled[g]);
    a.var[n * G + g] = static_cast<compute_t<T>>(value);
  });
}

template <class T>
void measure(const Forward<T>& a, const Lines& lines, int64_t n, bool parallel) {
  ColumnTable table(lines, a.grid.C);
  const T* image = a.x + n * a.grid.S * a.grid.C;
  const auto row = [&](int64_t i, const T* x, int64_t columns, int64_t count) {
    table.counts[i] = static_cast<double>(count);
    column_moments(x, columns, count, &table.means[i * lines.columns], &table.squares[i * lines.columns]);
  };
  each(parallel, lines.segments,
       [&](int64_t s) { row(s, image + lines.first(s) * lines.columns, lines.columns, lines.lines(s)); });
  table.rest = lines.rest;
  if (lines.rest) row(lines.segments, image + lines.whole * lines.columns, lines.rest, 1);
  pool(a, n, table);
}

// The coefficients of one image, a value for each column of a line.
template <class C>
struct ColumnScale {
  std::vector<C> mean, scale, shift;
  Gate gate;
  C slope;

  template <class Sweep>
  ColumnScale(const Sweep& a, int64_t columns, int64_t n)
      : mean(columns), scale(columns), shift(columns), gate(a.gate()), slope(a.affine.slope) {
    std::vector<C> rstd(a.grid.G);
    for (int64_t g = 0; g < a.grid.G; g++) rstd[g] = a.rstd(n * a.grid.G + g);
    each_column(columns, a.grid.C, [&](int64_t j, int64_t c) {
      const int64_t g = c / a.grid.channels();
      mean[j] = a.mean[n * a.grid.G + g];
      scale[j] = rstd[g] * a.weight(c);
      shift[j] = a.bias(c);
    });
  }
  Scale<const C*> at(int64_t j) const { return {mean.data() + j, scale.data() + j, shift.data() + j, gate, slope}; }
};

// Columns of the coefficients: enough lines to make loops long.
inline int64_t wide(const Lines& lines) { return lines.columns * std::max<int64_t>(1, kStep / lines.columns); }

// f(offset, its column, n) for the elements of an image, some columns at a time
template <class F>
void each_piece(bool parallel, const Grid& g, int64_t columns, const F& f) {
  const int64_t elements = g.S * g.C, part = std::max<int64_t>(1, kSegment / columns) * columns;
  each(parallel, (elements + part - 1) / part, [&](int64_t s) {
    const int64_t end = std::min(elements, (s + 1) * part);
    for (int64_t line = s * part; line < end; line += columns)
      for (int64_t j = 0; j < columns && line + j < end; j += kStep)
        f(line + j, j, std::min({kStep, columns - j, end - line - j}));
    stream_fence();
  });
}

template <class T>
void forward_pixels(const Forward<T>& a) {
  const Grid& g = a.grid;
  const Lines lines(g);
  const bool past = large<T>(g.N * g.C * g.S) && g.C * sizeof(T) % 64 == 0;
  share(g.N, g.N * g.S * g.C, [&](int64_t n, bool parallel) {
    if (a.training) measure(a, lines, n, parallel);
    if (!a.y) return;
    const ColumnScale<compute_t<T>> scale(a, wide(lines), n);
    each_piece(parallel, g, wide(lines), [&](int64_t offset, int64_t j, int64_t count) {
      const int64_t at = n * g.S * g.C + offset;
      a.write(a.x + at, a.skip ? a.skip + at : nullptr, scale.at(j), a.y + at, count, past);
    });
  });
}

}  // namespace normkernels
