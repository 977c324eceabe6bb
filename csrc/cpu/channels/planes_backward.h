// Channels whose planes are contiguous, backward: the sums of a bundle's planes, then dx.
#pragma once

#include "cpu/channels/backward.h"
#include "cpu/channels/planes.h"

namespace normkernels {

// From the sums of g and g * xhat of a bundle's groups what dx needs
template <class T>
void finish_means(const Backward<T>& a, const Bundle& bundle, Scratch<Means>& means) {
  average(means, a.of.grid.count());
  if (a.rule) a.rule(bundle.line * a.of.grid.G + bundle.group, bundle.groups, means.data());
}

// Per group of a bundle: what dx needs, from the sums of its planes' segments; and the parameters' gradients.
template <class T>
Scratch<Means> gather(const Backward<T>& a, const Bundle& bundle, const Scratch<Pair<double>>& table) {
  const Grid& g = a.of.grid;
  const int64_t parts = segments(g.S), D = g.channels(), line = bundle.groups * D * parts;
  Scratch<Means> means(bundle.groups);
  for (int64_t k = 0; k < bundle.groups; k++) {
    for (int64_t j = k * D; j < (k + 1) * D; j++) {
      Pair<double> sums = {};
      for (int64_t n = 0; n < g.images(); n++) {
        for (int64_t p = 0; p < parts; p++) {
          sums.a += table[n * line + j * parts + p].a;
          sums.b += table[n * line + j * parts + p].b;
        }
      }
      const int64_t group = bundle.group + k;
      add_channel(a, bundle.line * g.G + group, bundle.group * D + j, sums, bundle.line, means[k]);
    }
  }
  finish_means(a, bundle, means);
  return means;
}

// Whether the planes of an image can be taken at once: small ones, with at most a gate after them.
template <class T>
bool small(const Backward<T>& a) {
  const bool alone = a.of.plain() && !a.dskip, gated = a.of.gated() && a.exact();
  return a.of.grid.S <= kSmall && (alone || gated) && a.power == 2;
}
// The same with another activation, where there is room for du.
template <class T>
bool small_activated(const Backward<T>& a, const Bundle& bundle) {
  const Grid& g = a.of.grid;
  const bool fits = bundle.groups * g.channels() * g.S * g.images() <= kScratch;
  return g.S <= kSmall && !a.of.plain() && !a.of.gated() && fits && a.power == 2;
}

// A bundle of them, from du(image), which is there.
template <class T, class F>
void blend_small(const Backward<T>& a, const Bundle& bundle, const F& du) {
  using C = compute_t<T>;
  const Grid& g = a.of.grid;
  const int64_t width = bundle.groups * g.channels(), statistic = bundle.line * g.G + bundle.group;
  const auto at = [&](int64_t n) { return g.plane(bundle.image + n, bundle.group * g.channels()); };
  Scratch<Means> means(bundle.groups);
  if (a.sums()) {
    Scratch<C> mean(width);
    each_channel(g, bundle, [&](int64_t of, int64_t, int64_t j) { mean[j] = a.of.mean[of]; });
    Scratch<Pair<C>> sums(width);
    Scratch<Pair<double>> totals(width);
    for (int64_t n = 0; n < g.images(); n++) {
      sums_of_planes(du(n), a.of.x + at(n), mean.data(), width, g.S, sums.data());
      for (int64_t j = 0; j < width; j++) totals[j] = {totals[j].a + sums[j].a, totals[j].b + sums[j].b};
    }
    each_channel(g, bundle, [&](int64_t of, int64_t c, int64_t j) {
      add_channel(a, of, c, totals[j], bundle.line, means[of - statistic]);
    });
    finish_means(a, bundle, means);
  }
  if (!a.dx) return;
  Scratch<Blend<Same<C>>> blends(width);
  each_channel(g, bundle, [&](int64_t of, int64_t c, int64_t j) {
    blends[j] = a.template blend<C>(of, c, means[of - statistic]);
  });
  for (int64_t n = 0; n < g.images(); n++) blend_planes(du(n), a.of.x + at(n), blends.data(), a.dx + at(n), width, g.S);
}

// du of the small planes of an image, where the activation is no gate
template <class T>
void small_du(const Backward<T>& a, const Scratch<Scale<Same<compute_t<T>>>>& scales, int64_t at, compute_t<T>* du) {
  const int64_t S = a.of.grid.S;
  alignas(64) compute_t<T> u[kTile];
  each_tile_of_planes(scales.size(), S, [&](int64_t p, int64_t count) {
    const int64_t from = at + p * S, n = count * S;
    scale_planes(a.of.x + from, a.of.skip ? a.of.skip + from : nullptr, &scales[p], u, count, S);
    load_tile(a.dy + from, du + p * S, n);
    times_derivative(a.of.affine.activation, a.of.affine.slope, u, du + p * S, n);
    if (a.dskip) store_tile(du + p * S, a.dskip + from, n);
  });
}

template <class T>
void backward_small(const Backward<T>& a, const Bundle& bundle) {
  using C = compute_t<T>;
  const Grid& g = a.of.grid;
  const auto at = [&](int64_t n) { return g.plane(bundle.image + n, bundle.group * g.channels()); };
  if (a.of.plain()) return blend_small(a, bundle, [&](int64_t n) { return a.dy + at(n); });
  const auto scales = scales_of(a.of, bundle);
  const int64_t width = scales.size(), size = width * g.S;
  if (!a.of.gated()) {
    Scratch<C> kept(g.images() * size);
    for (int64_t n = 0; n < g.images(); n++) small_du(a, scales, at(n), &kept[n * size]);
    return blend_small(a, bundle, [&](int64_t n) { return static_cast<const C*>(&kept[n * size]); });
  }
  Scratch<T> kept(a.dskip ? 0 : g.images() * size);
  const auto du = [&](int64_t n) { return a.dskip ? a.dskip + at(n) : &kept[n * size]; };
  for (int64_t n = 0; n < g.images(); n++)
    gate_planes(a.dy + at(n), a.of.x + at(n), a.of.skip ? a.of.skip + at(n) : nullptr, scales.data(), du(n), width,
                g.S);
  blend_small(a, bundle, [&](int64_t n) { return static_cast<const T*>(du(n)); });
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
void backward_planes(const Backward<T>& a) {
  const Grid& g = a.of.grid;
  const bool nontemporal = large<T>(g.N * g.C * g.S) && g.S * sizeof(T) % 64 == 0;
  const Bundles bundles(g, 2 * sizeof(T));
  share(bundles.count(), g.N * g.C * g.S, [&](int64_t i, bool parallel) {
    const Bundle bundle = bundles[i];
    const int64_t first = bundle.group * g.channels(), width = bundle.groups * g.channels();
    const int64_t statistic = bundle.line * g.G + bundle.group;
    if (a.lost(statistic, bundle.groups)) measure(a.statistics(), bundle, parallel);
    const bool at_once = small(a) || small_activated(a, bundle);
    if (!parallel && !nontemporal && at_once && narrow(a, bundle)) return backward_small(a, bundle);
    Scratch<Means> means(bundle.groups);
    const auto scratch = a.scratch(g.images() * width * g.S);
    const auto kept = [&](const Run& r, int64_t s) {
      return !scratch ? nullptr : &scratch[((r.image - bundle.image) * width + r.c - first) * g.S + s];
    };
    if (a.sums()) {
      Scratch<Pair<double>> table(g.images() * width * segments(g.S));
      each_run(parallel, g, bundle, 1, [&](const Run& r) {
        const int64_t plane = g.plane(r.image, r.c);
        const auto scale = a.of.scale(r.statistic, r.c);
        Pair<double> total = {};
        for_each_step(r.begin, r.begin + r.n, [&](int64_t j, int64_t m) {
          a.with_du(plane + j, scale, m, kept(r, j), [&](const auto* du) {
            const auto part = sums_about(du, a.of.x + plane + j, a.of.mean[r.statistic], m);
            total.a += part.a;
            total.b += part.b;
          });
        });
        table[r.index] = total;
      });
      means = gather(a, bundle, table);
    }
    if (!a.dx) return;
    each_run(parallel, g, bundle, 1, [&](const Run& r) {
      const int64_t plane = g.plane(r.image, r.c);
      const auto scale = a.of.scale(r.statistic, r.c);
      const auto each_du = [&](const auto& f) {
        for_each_step(r.begin, r.begin + r.n, [&](int64_t j, int64_t m) {
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
    if (nontemporal) nontemporal_fence();
  });
}

}  // namespace normkernels
