// Online Normalization on the CPU. Samples are taken in blocks that stay in the second-level cache: moments of every
// channel of every sample of the block, then a walk over its samples, then y. So x is read from memory once, and the
// loop over samples is one over rows of a table, vectorised along their channels.
#pragma once

#include "cpu/channels/channels_last.h"
#include "cpu/channels/planes.h"
#include "cpu/online/tiles.h"

namespace normkernels {

constexpr int64_t kRange = 512;      // channels whose state stays in the first-level cache while samples go by
constexpr int64_t kPiece = 1 << 14;  // elements of a sample's planes that one thread takes
constexpr int64_t kRows = 1 << 17;   // entries of a block's tables

// What both directions have: the grid is (N, C), a statistic for each channel of each sample. gain: (N,) or null;
// weight and bias are never null.
template <class T>
struct Samples {
  using C = compute_t<T>;
  Channels<T> of;
  C *xhat, *square;  // (N, C), null where a sample is one value or nobody needs them
  C *gain, clamp;    // clamp: infinite for none
  bool last;
  bool scales = true;  // whether sweeps need scale and shift, be it for y or for u

  int64_t values() const { return of.grid.C * of.grid.S; }
  bool single() const { return of.grid.S == 1; }
  bool clamped() const { return std::isfinite(clamp); }
  bool nontemporal() const {
    return large<T>(of.grid.N * values()) && (last ? of.grid.C : of.grid.S) * sizeof(T) % 64 == 0;
  }
  C gain_of(int64_t n) const { return gain ? gain[n] : C(1); }
  Met<C> met(int64_t n, int64_t c) const {
    const int64_t at = n * of.grid.C + c;
    return {of.mean + at,         of.rstd + at,      xhat ? xhat + at : nullptr, square ? square + at : nullptr,
            of.affine.weight + c, of.affine.bias + c};
  }
  // Samples of a block, of so many bytes a value: what the caches of all threads hold
  int64_t block(int64_t bytes) const {
    const int64_t threads = torch::stable::get_num_threads();
    return std::clamp<int64_t>(threads * kBundle / (values() * bytes), threads,
                               std::max<int64_t>(threads, kRows / of.grid.C));
  }

  // z = clamp((x - mean) * scale + shift), before skip and activation
  template <class K>
  void clamped_tile(int64_t at, Scale<K> k, C* z, int64_t n) const {
    k.gate = Gate::none;
    scale_tile(of.x + at, static_cast<const T*>(nullptr), k, z, n);
  }
};

// The coefficients of dx, (samples of a block, C) each; forward has none.
template <class C>
struct Coefficients {
  C *a = nullptr, *b = nullptr, *c = nullptr;
  Coefficients at(int64_t i) const { return {a + i, b + i, c + i}; }
};

// f(sample, channel) for all planes of a block, several to a piece
template <class F>
void each_plane(bool parallel, const Grid& g, int64_t first, int64_t samples, const F& f) {
  const int64_t few = std::max<int64_t>(1, kPiece / g.S), pieces = (g.C + few - 1) / few;
  each(parallel, samples * pieces, [&](int64_t i) {
    for (int64_t c = i % pieces * few; c < std::min(g.C, (i % pieces + 1) * few); c++) f(first + i / pieces, c);
    nontemporal_fence();
  });
}

// f(first channel, channels) for every range of channels: the same ranges for any number of threads
template <class F>
void each_range(bool parallel, int64_t C, const F& f) {
  each(parallel, (C + kRange - 1) / kRange, [&](int64_t i) { f(i * kRange, std::min(kRange, C - i * kRange)); });
}

// Per sample of a block the mean over its channels of what f(sample of the block, first channel, channels) sums.
template <class C, class F>
Scratch<C> channel_means(bool parallel, int64_t channels, int64_t samples, const F& f) {
  const int64_t ranges = (channels + kRange - 1) / kRange;
  Scratch<C> parts(ranges * samples), total(samples);
  each_range(parallel, channels, [&](int64_t c, int64_t n) {
    for (int64_t k = 0; k < samples; k++) parts[c / kRange * samples + k] = f(k, c, n);
  });
  for (int64_t i = 0; i < ranges * samples; i++) total[i % samples] += parts[i];
  for (C& t : total) t /= static_cast<C>(channels);
  return total;
}

// The coefficients of sample n of channels that lie last, with its gain.
template <class T>
ColumnScale<compute_t<T>> column_scale(const Samples<T>& a, const Lines& lines, int64_t columns, int64_t n) {
  ColumnScale<compute_t<T>> k(a.of, lines, columns, n);
  for (auto* values : {&k.scale, &k.shift})
    for (auto& v : *values) v *= a.gain_of(n);
  return k;
}

// f(element, scale, n) for the tiles of a block whose samples are one row of channels each.
template <class T, class F>
void each_row_tile(const Samples<T>& a, bool parallel, int64_t first, int64_t samples, const F& f) {
  using C = compute_t<T>;
  each(parallel, samples, [&](int64_t i) {
    for_each_step(0, a.of.grid.C, [&](int64_t c, int64_t m) {
      alignas(64) C scale[kStep], shift[kStep];
      const int64_t n = first + i, at = n * a.of.grid.C + c;
      if (a.scales) fold_tile(a.met(n, c), a.gain_of(n), scale, shift, m);
      f(at, Scale<const C*>{a.of.mean + at, scale, shift, a.of.gate(), a.of.affine.slope}, m);
    });
    nontemporal_fence();
  });
}

// f(element, scale, blend, n) for the tiles of a block whose channel is one: planes.
template <class T, class F>
void each_plane_tile(const Samples<T>& a, bool parallel, int64_t first, int64_t samples,
                     const Coefficients<compute_t<T>>& k, const F& f) {
  using C = compute_t<T>;
  each_plane(parallel, a.of.grid, first, samples, [&](int64_t n, int64_t c) {
    const int64_t s = n * a.of.grid.C + c, row = (n - first) * a.of.grid.C + c, at = a.of.grid.plane(n, c);
    const C gain = a.gain_of(n);
    const Scale<Same<C>> scale = {
        {a.of.mean[s]}, {a.of.rstd[s] * a.of.weight(c) * gain}, {a.of.bias(c) * gain}, a.of.gate(), a.of.affine.slope};
    Blend<Same<C>> blend = {{a.of.mean[s]}, {}, {}, {}};
    if (k.a) blend = {{a.of.mean[s]}, {k.a[row]}, {k.b[row]}, {k.c[row]}};
    for_each_step(at, at + a.of.grid.S, [&](int64_t j, int64_t m) { f(j, scale, blend, m); });
  });
}

// The same for several rows of channels to a sample: they lie last.
template <class T, class F>
void each_channels_last_tile(const Samples<T>& a, int64_t first, int64_t samples, const Coefficients<compute_t<T>>& k,
                             const F& f) {
  using C = compute_t<T>;
  const Lines lines(a.of.grid, 1);
  const int64_t columns = wide(lines);
  share(samples, samples * a.values(), true, [&](int64_t i, bool inside) {
    const int64_t n = first + i;
    const auto of = [&](const C* row) {
      return k.a ? of_columns(lines, columns, Raw<C>(row, row + a.of.grid.C)) : Raw<C>();
    };
    const Coefficients<C> row = k.at(i * a.of.grid.C);
    const auto scale = column_scale(a, lines, columns, n);
    const auto ka = of(row.a), kb = of(row.b), kc = of(row.c);
    each_piece(inside, a.of.grid, columns, [&](int64_t offset, int64_t j, int64_t m) {
      const Blend<const C*> blend = {scale.mean.data() + j, ka.data() + j, kb.data() + j, kc.data() + j};
      f(n * a.values() + offset, scale.at(j), blend, m);
    });
  });
}

template <class T, class F>
void each_tile(const Samples<T>& a, bool parallel, int64_t first, int64_t samples, const Coefficients<compute_t<T>>& k,
               const F& f) {
  if (a.last) return each_channels_last_tile(a, first, samples, k, f);
  each_plane_tile(a, parallel, first, samples, k, f);
}

}  // namespace normkernels
