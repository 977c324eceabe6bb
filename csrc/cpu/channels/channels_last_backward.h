// Channels that lie last, backward: the sums down the columns of an image, then dx.
#pragma once

#include "cpu/channels/backward.h"
#include "cpu/channels/channels_last.h"

namespace normkernels {

// Adds the sums over a block of lines, columns of stride each, to p and q. source: has du, a itself or who knows what
// else lies between u and y; kept: see with_du.
template <class T, class Source, class C>
void add_block(const Backward<T>& a, const Source& source, const ColumnScale<C>& scale, int64_t at, int64_t stride,
               int64_t columns, int64_t rows, C* kept, Pair<C*> sums) {
  const auto* mean = scale.mean.data();
  C *p = sums.a, *q = sums.b;
  if (source.plain()) {
    return each_band<C>(
        columns, rows, far_away<T>(a.of.grid), [&](int64_t line, int64_t count, int64_t j, int64_t n, int64_t ahead) {
          const int64_t from = at + line * stride + j;
          add_gradient_columns(a.dy + from, stride, a.of.x + from, stride, count, ahead, mean + j, p + j, q + j, n);
        });
  }
  const int64_t wide = scale.mean.size(), lines = std::max<int64_t>(1, wide / columns), part = std::min(columns, kStep);
  for (int64_t line = 0; line < rows; line += lines) {
    const int64_t count = std::min(lines, rows - line);
    for (int64_t j = 0; j < columns; j += part) {
      const int64_t from = line * stride + j, width = std::min(part, columns - j);
      source.with_du(at + from, scale.at(j), count * width, kept ? kept + from : nullptr, [&](const auto* du) {
        const int64_t band = columns_at_once<C>();
        for (int64_t k = 0; k < width; k += band)
          add_gradient_columns(du + k, stride, a.of.x + at + from + k, stride, count, 0, mean + j + k, p + j + k,
                               q + j + k, std::min(band, width - k));
      });
    }
  }
}

// The sums of an image over each of its channels of du, then those of du * (x - mean)
template <class T, class Source, class C>
Scratch<double> channel_sums(const Backward<T>& a, const Source& source, const Lines& lines, int64_t n,
                             const ColumnScale<C>& scale, C* kept, bool parallel) {
  const int64_t columns = lines.columns;
  Scratch<double> table((lines.segments + 1) * 2 * columns);
  const auto sum = [&](int64_t s, int64_t first, int64_t rows, int64_t wide) {
    Scratch<C> buffer(2 * columns);
    C *p = buffer.data(), *q = p + columns;
    for (int64_t row = 0; row < rows; row += kBlock) {
      const int64_t from = (first + row) * columns, at = n * a.of.grid.S * a.of.grid.C + from;
      add_block(a, source, scale, at, columns, wide, std::min(kBlock, rows - row), kept ? kept + from : nullptr,
                {p, q});
      drain(p, &table[s * 2 * columns], 2 * columns);
    }
    nontemporal_fence();
  };
  each(parallel, lines.segments, [&](int64_t s) { sum(s, lines.first(s), lines.lines(s), columns); });
  if (lines.rest) sum(lines.segments, lines.whole, 1, lines.rest);
  if (lines.single()) return table;
  Scratch<double> sums(2 * lines.channels);
  for (int64_t s = 0; s <= lines.segments; s++) {
    const double* row = &table[s * 2 * columns];
    lines.each_column(s < lines.segments ? columns : lines.rest, [&](int64_t j, int64_t c) {
      sums[c] += row[j];
      sums[lines.channels + c] += row[columns + j];
    });
  }
  return sums;
}

// The coefficients of dx, a value for each column of some lines.
template <class M>
struct ColumnBlend : ChannelBlend<M> {
  template <class T>
  ColumnBlend(const Backward<T>& sweep, const Lines& lines, int64_t columns, int64_t n, const Scratch<Means>& means)
      : ChannelBlend<M>(sweep, sweep.of.groups(n * sweep.of.grid.G, sweep.of.grid.G, 0), n * sweep.of.grid.G, 0,
                        means) {
    for (auto* values : {&this->mean, &this->a, &this->b, &this->c})
      *values = of_columns(lines, columns, std::move(*values));
  }
};

template <class T>
void backward_image(const Backward<T>& a, const Lines& lines, int64_t n, int64_t line, bool parallel) {
  using C = compute_t<T>;
  const Grid& g = a.of.grid;
  const bool nontemporal = large<T>(g.N * g.C * g.S, 3) && g.C * sizeof(T) % 64 == 0;
  if (a.lost(n * g.G, g.G)) measure(a.statistics(), lines, n, parallel);
  const bool plain = a.of.plain();  // du is dy then, and only the means are read
  const ColumnScale<C> scale(a.of, lines, plain ? lines.columns : wide(lines), n, !plain);
  Scratch<Means> means(g.G);
  const auto scratch = a.scratch(g.S * g.C);
  C* const kept = scratch.get();
  const auto groups = a.of.groups(n * g.G, g.G, 0);
  if (a.sums() && lines.single() && g.S <= kFewPositions) {
    Scratch<C> sums(2 * g.C);
    add_block(a, a, scale, n * g.S * g.C, g.C, g.C, g.S, kept, {sums.data(), &sums[g.C]});
    a.add(groups, 0, line, sums.data(), &sums[g.C], means);
    if (a.far) nontemporal_fence();
  } else if (a.sums()) {
    const auto sums = channel_sums(a, a, lines, n, scale, kept, parallel);
    a.add(groups, 0, line, sums.data(), &sums[g.C], means);
  }
  if (!a.dx) return;
  a.settle(n * g.G, g.G, means);
  const auto each_du = [&](const auto& f) {
    each_piece(parallel, g, wide(lines), [&](int64_t offset, int64_t j, int64_t count) {
      const int64_t at = n * g.S * g.C + offset;
      a.with_du_again(at, scale.at(plain ? 0 : j), count, kept ? kept + offset : nullptr,
                      [&](const auto* du) { f(du, at, j, count); });
    });
  };
  bool any = false;
  for (int64_t group = 0; group < g.G; group++) any |= a.wide(n * g.G + group);
  if (any && a.power == 2) {
    const ColumnBlend<double> blend(a, lines, wide(lines), n, means);
    return each_du([&](const auto* du, int64_t at, int64_t j, int64_t m) { a.write_wide(du, at, blend.at(j), m); });
  }
  if constexpr (std::is_same_v<T, float>) {
    if (by_bands(a.of, lines) && !nontemporal && !a.dskip && a.power == 2) {
      const ColumnBlend<float> blend(a, lines, lines.columns, n, means);
      const int64_t at = n * g.S * g.C;
      return blend_columns(a.dy + at, a.of.x + at, blend.at(0), a.dx + at, g.S, g.C);
    }
  }
  const ColumnBlend<C> blend(a, lines, wide(lines), n, means);
  each_du([&](const auto* du, int64_t at, int64_t j, int64_t m) { a.write(du, at, blend.at(j), m, nontemporal); });
}

template <class T>
void backward_channels_last(Backward<T> a, int64_t run = 1) {
  const int64_t N = a.of.grid.N, parts = chunks(a.of.grid);
  const int64_t image = a.of.grid.S * a.of.grid.C;
  // The second sweep over an image reads what its first left in dskip, but not the gradient of an opener.
  a.far = a.of.opener ? sizeof(T) >= 4 && large<T>(N * image, 3) : large<T>(image, 3);
  const Lines lines(a.of.grid, run);
  share(parts, N * image, true, [&](int64_t chunk, bool parallel) {
    for (int64_t n = chunk * N / parts; n < (chunk + 1) * N / parts; n++) backward_image(a, lines, n, chunk, parallel);
  });
}

}  // namespace normkernels
