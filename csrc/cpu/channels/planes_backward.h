// Channels whose planes are contiguous, backward: the sums of a bundle's planes, then dx.
#pragma once

#include "cpu/channels/backward.h"
#include "cpu/channels/planes.h"

namespace normkernels {

// The sums of a bundle's channels, from those of its planes' segments
template <class T>
void gather(const Backward<T>& a, const Bundle& bundle, const Scratch<Pair<double>>& table, Scratch<Means>& means) {
  const Grid& g = a.of.grid;
  const int64_t parts = segments(g.S), width = bundle.groups * g.channels();
  Scratch<double> sums(2 * width);
  for (int64_t n = 0, at = 0; n < g.images(); n++) {
    for (int64_t j = 0; j < width; j++) {
      for (int64_t p = 0; p < parts; p++, at++) {
        sums[j] += table[at].a;
        sums[width + j] += table[at].b;
      }
    }
  }
  a.add(groups_of(a.of, bundle), bundle.group * g.channels(), bundle.chunk, sums.data(), &sums[width], means);
}

// Whether the planes of an image can be taken at once: small ones, with at most a gate after them.
template <class T>
bool small(const Backward<T>& a) {
  const bool alone = a.of.plain() && !a.dskip, gated = a.of.gated() && a.exact();
  return small_planes(a.of.grid) && (alone || gated) && a.power == 2;
}
// The same with another activation, where there is room for du.
template <class T>
bool small_activated(const Backward<T>& a, const Bundle& bundle) {
  const Grid& g = a.of.grid;
  const bool fits = bundle.groups * g.channels() * g.S * g.images() <= kScratch;
  return small_planes(g) && !a.of.plain() && !a.of.gated() && fits && a.power == 2;
}

// A bundle of them, from du(image), which is there.
template <class T, class F>
void blend_small(const Backward<T>& a, const Bundle& bundle, bool nontemporal, const F& du) {
  using C = compute_t<T>;
  const Grid& g = a.of.grid;
  const int64_t channel = bundle.group * g.channels(), width = bundle.groups * g.channels();
  const int64_t statistic = bundle.line * g.G + bundle.group;
  const auto groups = groups_of(a.of, bundle);
  const auto at = [&](int64_t n) { return g.plane(bundle.image + n, channel); };
  Scratch<Means> means(bundle.groups);
  if (a.sums()) {
    Raw<C> mean(width), sums(2 * width);
    channel_means(groups, mean.data());
    Scratch<double> totals(g.images() > 1 ? 2 * width : 0);
    for (int64_t n = 0; n < g.images(); n++) {
      sums_of_planes(du(n), a.of.x + at(n), mean.data(), width, g.S, sums.data(), &sums[width]);
      for (size_t j = 0; j < totals.size(); j++) totals[j] += sums[j];
    }
    if (g.images() > 1) {
      a.add(groups, channel, bundle.chunk, totals.data(), &totals[width], means);
    } else {
      a.add(groups, channel, bundle.chunk, sums.data(), &sums[width], means);
    }
  }
  if (!a.dx) return;
  a.settle(statistic, bundle.groups, means);
  const ChannelBlend<C> blends(a, groups, statistic, channel, means);
  const int64_t results = g.N * g.C * g.S;
  for (int64_t n = 0; n < g.images(); n++) {
    if (!nontemporal) blend_planes(du(n), a.of.x + at(n), blends.at(0), a.dx + at(n), width, g.S, results);
    for (int64_t p = 0; p < width && nontemporal; p++) {
      const Blend<Same<C>> plane = {{blends.mean[p]}, {blends.a[p]}, {blends.b[p]}, {blends.c[p]}};
      blend_nontemporal(du(n) + p * g.S, a.of.x + at(n) + p * g.S, plane, a.dx + at(n) + p * g.S, g.S);
    }
  }
}

// du of the small planes of an image, where the activation is no gate
template <class T>
void small_du(const Backward<T>& a, const ChannelScale<compute_t<T>>& scales, int64_t at, compute_t<T>* du) {
  const int64_t S = a.of.grid.S;
  alignas(64) compute_t<T> u[kTile];
  each_tile_of_planes(scales.mean.size(), S, [&](int64_t p, int64_t count) {
    const int64_t from = at + p * S, n = count * S;
    scale_planes(a.of.x + from, a.of.skip ? a.of.skip + from : nullptr, scales.at(p), u, count, S);
    load_tile(a.dy + from, du + p * S, n);
    a.through(from, u, du + p * S, n);
    if (a.dskip && !a.of.opener) store_tile(du + p * S, a.dskip + from, n);
  });
}

template <class T>
void backward_small(const Backward<T>& a, const Bundle& bundle, bool nontemporal) {
  using C = compute_t<T>;
  const Grid& g = a.of.grid;
  const auto at = [&](int64_t n) { return g.plane(bundle.image + n, bundle.group * g.channels()); };
  if (a.of.plain()) return blend_small(a, bundle, nontemporal, [&](int64_t n) { return a.dy + at(n); });
  const ChannelScale<C> scales(a.of, groups_of(a.of, bundle));
  const int64_t width = scales.mean.size(), size = width * g.S;
  if (!a.of.gated()) {
    Raw<C> kept(g.images() * size);
    for (int64_t n = 0; n < g.images(); n++) small_du(a, scales, at(n), &kept[n * size]);
    return blend_small(a, bundle, nontemporal, [&](int64_t n) { return static_cast<const C*>(&kept[n * size]); });
  }
  Raw<T> kept(a.dskip ? 0 : g.images() * size);
  const auto du = [&](int64_t n) { return a.dskip ? a.dskip + at(n) : &kept[n * size]; };
  for (int64_t n = 0; n < g.images(); n++)
    gate_planes(a.dy + at(n), a.of.x + at(n), a.of.skip ? a.of.skip + at(n) : nullptr, scales.at(0), du(n), width, g.S);
  blend_small(a, bundle, nontemporal, [&](int64_t n) { return static_cast<const T*>(du(n)); });
}

// Whether C holds the squares of all scales of a bundle.
template <class T>
bool narrow(const Backward<T>& a, const Bundle& bundle) {
  const int64_t first = bundle.line * a.of.grid.G + bundle.group;
  for (int64_t i = first; i < first + bundle.groups; i++)
    if (a.wide(i)) return false;
  return true;
}

template <class T>
void backward_bundle(const Backward<T>& a, const Bundle& bundle, bool nontemporal, bool parallel) {
  const Grid& g = a.of.grid;
  const int64_t first = bundle.group * g.channels(), width = bundle.groups * g.channels();
  const int64_t statistic = bundle.line * g.G + bundle.group, most = a.of.plain() ? kTile : kStep;
  if (a.lost(statistic, bundle.groups)) measure(a.statistics(), bundle, parallel);
  const bool at_once = small(a) || small_activated(a, bundle);
  // Larger planes are added up one by one either way; of smaller ones how is a matter of their size alone.
  const bool either_way = nontemporal && g.S >= kOneByOne;
  if (!either_way && at_once && narrow(a, bundle)) return backward_small(a, bundle, nontemporal);
  Scratch<Means> means(bundle.groups);
  const auto scratch = a.scratch(g.images() * width * g.S);
  const auto kept = [&](const Run& r, int64_t s) {
    return scratch.at(((r.image - bundle.image) * width + r.c - first) * g.S + s);
  };
  if (a.sums()) {
    Scratch<Pair<double>> table(g.images() * width * segments(g.S));
    each_run(parallel, g, bundle, 1, [&](const Run& r) {
      const int64_t plane = g.plane(r.image, r.c);
      const auto scale = a.of.scale(r.statistic, r.c);
      Pair<double> total = {};
      for_each_part(r.begin, r.begin + r.n, most, [&](int64_t j, int64_t m) {
        a.with_du(plane + j, scale, m, kept(r, j), [&](const auto* du) {
          const auto part = sums_about(du, a.of.x + plane + j, a.of.mean[r.statistic], m);
          total.a += part.a;
          total.b += part.b;
        });
      });
      table[r.index] = total;
    });
    gather(a, bundle, table, means);
  }
  if (!a.dx) return;
  a.settle(statistic, bundle.groups, means);
  each_run(parallel, g, bundle, 1, [&](const Run& r) {
    const int64_t plane = g.plane(r.image, r.c);
    const auto scale = a.of.scale(r.statistic, r.c);
    const auto each_du = [&](const auto& f) {
      for_each_part(r.begin, r.begin + r.n, most, [&](int64_t j, int64_t m) {
        a.with_du_again(plane + j, scale, m, kept(r, j), [&](const auto* du) { f(du, plane + j, m); });
      });
    };
    const Means& mean = means[r.statistic - statistic];
    if (a.wide(r.statistic) && a.power == 2) {
      const auto blend = a.template blend<double>(r.statistic, r.c, mean);
      return each_du([&](const auto* du, int64_t at, int64_t m) { a.write_wide(du, at, blend, m); });
    }
    const auto blend = a.template blend<compute_t<T>>(r.statistic, r.c, mean);
    each_du([&](const auto* du, int64_t at, int64_t m) { a.write(du, at, blend, m, nontemporal); });
  });
}

template <class T>
void backward_planes(const Backward<T>& a) {
  const Grid& g = a.of.grid;
  const bool nontemporal = large<T>(g.N * g.C * g.S, 3) && g.S * sizeof(T) % 64 == 0;
  const Bundles bundles(g, 2 * sizeof(T));
  const int64_t of_line = bundles.per_line(), lines = chunks(g);
  share(lines * of_line, g.N * g.C * g.S, !small_planes(g), [&](int64_t i, bool parallel) {
    const int64_t chunk = i / of_line;
    for (int64_t line = chunk * g.B / lines; line < (chunk + 1) * g.B / lines; line++)
      backward_bundle(a, bundles.at(line, i % of_line, chunk), nontemporal, parallel);
    if (nontemporal) nontemporal_fence();
  });
}

}  // namespace normkernels
