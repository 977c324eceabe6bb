// Channels that lie last as columns: x is (N, S, C), and every image has statistics of its own (a batch comes as one
// long image).
//
// Positions are folded: several make one line of whole bands of columns, whatever the number of channels. A line's
// columns keep their own sums; only the rule adds up the columns of a channel, and the channels of a group.
#pragma once

#include <numeric>
#include <utility>

#include "cpu/channels/forward.h"

namespace normkernels {

constexpr int64_t kBlock = 32;            // lines that are summed before their sums are merged
constexpr int64_t kWide = 512;            // columns whose sums lie in the first-level cache rather than in registers
constexpr int64_t kFewPositions = 64;     // of an image whose lines are not worth folding
constexpr int64_t kSmallImage = 1 << 14;  // elements that lie in the first caches, in whatever order they are read

// The lines of one image, and their segments: what one thread sums.
struct Lines {
  int64_t channels, run;         // adjacent columns of a channel: 1, or a tiny plane of each image of a batch
  int64_t columns, whole, rest;  // whole lines, and the columns of a last one
  int64_t segments;

  Lines(const Grid& g, int64_t run) : channels(g.C), run(run), columns(g.C * run), whole(g.S / run), rest(0) {
    segments = std::clamp<int64_t>(std::bit_floor<uint64_t>(g.S * g.C >> (run > 1 ? 18 : 16)), 1, 64);
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
    for (int64_t j = 0; j < n && run == 1; j += channels)  // loops that are vectorised
      for (int64_t c = 0; c < channels; c++) f(j + c, c);
    for (int64_t j = 0; j < n && run > 1;)
      for (int64_t c = 0; c < channels; c++)
        for (int64_t r = 0; r < run; r++) f(j++, c);
  }
};

// Whether elements of T are so many that no near cache holds them: then a line is read after the other, as memory is
// read best.
template <class T>
bool far_away(const Grid& g) {
  return g.N * g.S * g.C * static_cast<int64_t>(sizeof(T)) > 4 * kNearBytes;
}

// f(first line, lines, first column, n, elements ahead) for a block of lines, a few lines of a band at a time; C: of
// sums
template <class C, class F>
void each_band(int64_t columns, int64_t lines, bool far, const F& f) {
  const int64_t registers = columns_at_once<C>();
  const bool small = !far && columns * lines <= kSmallImage;
  // Where registers hold one band, sums of two lie as well in the cache.
  const bool wide = !small && columns >= (far && registers == kBand ? 2 * kBand : kWide);
  const int64_t band = wide ? std::min(columns, 4 * kWide) : registers;
  const int64_t few = std::clamp<int64_t>(2048 / columns, small ? kBlock : 4, kBlock);
  const int64_t ahead = columns > band ? few * columns : wide ? columns : 0;
  for (int64_t line = 0; line < lines; line += few)
    for (int64_t j = 0; j < columns; j += band)
      f(line, std::min(few, lines - line), j, std::min(band, columns - j), ahead);
}

// What each channel has, for each column of some lines.
template <class C>
Raw<C> of_columns(const Lines& lines, int64_t columns, Raw<C> of_channels) {
  if (columns == lines.channels || of_channels.empty()) return of_channels;
  Raw<C> values(columns);
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

}  // namespace normkernels
