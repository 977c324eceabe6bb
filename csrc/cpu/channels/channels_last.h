// Channels that lie last: x is (N, S, C), and every image has statistics of its own (a batch comes as one long image).
//
// Positions are folded: several make one line of whole bands of columns, whatever the number of channels. A line's
// columns keep their own sums; only the rule adds up the columns of a channel, and the channels of a group.
#pragma once

#include <numeric>
#include <utility>

#include "cpu/channels/forward.h"

namespace normkernels {

constexpr int64_t kBlock = 32;            // lines that are summed before their sums are merged
constexpr int64_t kRounded = 16;          // lines of a small image that are summed in its compute type
constexpr int64_t kFewPositions = 64;     // of an image whose lines are not worth folding
constexpr int64_t kSmallImage = 1 << 14;  // elements that lie in the first caches, in whatever order they are read

// The lines of one image, and their segments: what one thread sums.
struct Lines {
  int64_t channels, run;         // adjacent columns of a channel: 1, or a tiny plane of each image of a batch
  int64_t columns, whole, rest;  // whole lines, and the columns of a last one
  int64_t segments;

  Lines(const Grid& g, int64_t run) : channels(g.C), run(run), columns(g.C * run), whole(g.S / run), rest(0) {
    segments = std::clamp<int64_t>(g.S * g.C >> 18, 1, 64);
    if (run > 1 || g.S <= kFewPositions) return;
    const int64_t whole_bands = kBand / std::gcd(g.C, kBand), fold = whole_bands * g.C > 2048 ? 1 : whole_bands;
    columns = fold * g.C;
    whole = g.S / fold;
    rest = g.S % fold * g.C;
  }
  // Whether one segment of lines of one position each is all
  bool single() const { return segments == 1 && rest == 0 && columns == channels; }
  int64_t first(int64_t segment) const { return segment * whole / segments; }
  int64_t lines(int64_t segment) const { return first(segment + 1) - first(segment); }

  // f(column, channel) for n columns, in order
  template <class F>
  void each_column(int64_t n, const F& f) const {
    for (int64_t j = 0; j < n;)
      for (int64_t c = 0; c < channels; c++)
        for (int64_t r = 0; r < run; r++) f(j++, c);
  }
};

// f(first line, lines, first column, n, elements ahead) for a block of lines, a few lines of a band at a time; C: of
// sums
template <class C, class F>
void each_band(int64_t columns, int64_t lines, const F& f) {
  const int64_t band = columns_at_once<C>();
  const int64_t most = columns * lines <= kSmallImage ? kBlock : 4;
  const int64_t few = std::clamp<int64_t>(2048 / columns, most, kBlock), ahead = columns > band ? few * columns : 0;
  for (int64_t line = 0; line < lines; line += few)
    for (int64_t j = 0; j < columns; j += band)
      f(line, std::min(few, lines - line), j, std::min(band, columns - j), ahead);
}

// The mean and m2 of every column over a segment of lines.
template <class T>
void column_moments(const T* x, int64_t columns, int64_t lines, double eps, double* mean, double* m2) {
  using C = compute_t<T>;
  if (lines == 0) return;  // of an image smaller than a line, which is all rest
  Scratch<C> buffer(3 * columns);
  C *about = buffer.data(), *a = about + columns, *b = a + columns;
  load_tile(x, about, columns);
  for (int64_t first = 0; first < lines; first += kBlock) {
    const int64_t rows = std::min(kBlock, lines - first);
    const auto add = [&] {
      each_band<C>(columns, rows, [&](int64_t line, int64_t count, int64_t j, int64_t n, int64_t ahead) {
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
    Scratch<C> about(g.C);
    for (int64_t k = 0; k < g.G; k++) std::fill_n(&about[k * D], D, of_groups[k]);
    Scratch<C> of_rows(2 * g.C);
    C *p = of_rows.data(), *q = p + g.C;
    const auto add_rows = [&](int64_t row) {
      each_band<C>(g.C, std::min(kRounded, g.S - row),
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
    column_moments(x, columns, count, a.of.eps, &table.means[i * lines.columns], &table.squares[i * lines.columns]);
  };
  each(parallel, lines.segments,
       [&](int64_t s) { row(s, image + lines.first(s) * lines.columns, lines.columns, lines.lines(s)); });
  if (lines.rest) row(lines.segments, image + lines.whole * lines.columns, lines.rest, 1);
  pool(a, n, table);
}

// What each channel has, for each column of some lines.
template <class C>
Scratch<C> of_columns(const Lines& lines, int64_t columns, Scratch<C> of_channels) {
  if (columns == lines.channels || of_channels.empty()) return of_channels;
  Scratch<C> values(columns);
  if (lines.run > 1) {
    lines.each_column(columns, [&](int64_t j, int64_t c) { values[j] = of_channels[c]; });
  } else {
    for (int64_t j = 0; j < columns; j += lines.channels)
      std::copy(of_channels.begin(), of_channels.end(), values.begin() + j);
  }
  return values;
}

// The coefficients of one image, a value for each column of some lines.
template <class C>
struct ColumnScale : ChannelScale<C> {
  template <class T>
  ColumnScale(const Channels<T>& of, const Lines& lines, int64_t columns, int64_t n, bool all = true)
      : ChannelScale<C>(of, of.groups(n * of.grid.G, of.grid.G, 0), all) {
    for (auto* values : {&this->mean, &this->scale, &this->shift})
      *values = of_columns(lines, columns, std::move(*values));
  }
};

// Columns of the coefficients: enough lines to make loops long, but few of a small image, which pays for each.
inline int64_t wide(const Lines& lines) {
  return lines.columns * std::clamp<int64_t>(kStep / lines.columns, 1, std::max<int64_t>(1, lines.whole / 4));
}

template <class T>
void forward_channels_last(const Forward<T>& a, int64_t run = 1) {
  const Grid& g = a.of.grid;
  const Lines lines(g, run);
  const bool nontemporal = large<T>(g.N * g.C * g.S) && g.C * sizeof(T) % 64 == 0;
  share(g.N, g.N * g.S * g.C, [&](int64_t n, bool parallel) {
    if (a.training) {
      measure(a, lines, n, parallel);
      if (a.rule) a.rule(n * g.G, g.G);
    }
    if (!a.y) return;
    const ColumnScale<compute_t<T>> scale(a.of, lines, wide(lines), n);
    each_piece(parallel, g, wide(lines), [&](int64_t offset, int64_t j, int64_t count) {
      const int64_t at = n * g.S * g.C + offset;
      a.of.write(a.of.x + at, a.of.skip ? a.of.skip + at : nullptr, scale.at(j), a.y + at, count, nontemporal);
    });
  });
}

}  // namespace normkernels
