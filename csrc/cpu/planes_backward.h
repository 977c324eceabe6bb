// Channels whose planes are contiguous, backward: the sums of a bundle's planes, then dx.
#pragma once

#include "planes.h"

namespace normkernels {

// Per group of a bundle: what dx needs, from the sums of its planes' segments; and the parameters' gradients.
template <class T>
Scratch<Means> gather(const Backward<T>& a, const Bundle& bundle, const Scratch<Pair<double>>& table) {
  const Grid& g = a.grid;
  const int64_t parts = segments(g.S), D = g.channels(), line = bundle.groups * D * parts;
  Scratch<Means> means(bundle.groups);
  for (int64_t j = 0; j < bundle.groups * D; j++) {
    Pair<double> sums = {};
    for (int64_t n = 0; n < g.images(); n++) {
      for (int64_t p = 0; p < parts; p++) {
        sums.a += table[n * line + j * parts + p].a;
        sums.b += table[n * line + j * parts + p].b;
      }
    }
    const int64_t c = bundle.group * D + j;
    add_channel(a, bundle.line * g.G + c / D, c, sums, bundle.line, means[j / D]);
  }
  if (a.rule) a.rule(bundle.line * g.G + bundle.group, bundle.groups, means.data());
  return means;
}

constexpr int64_t kSmall = 1024;  // positions of a plane that costs less than the walk to it

// A bundle of small planes without an activation: those of an image at once.
template <class T>
void backward_small(const Backward<T>& a, const Bundle& bundle) {
  using C = compute_t<T>;
  const Grid& g = a.grid;
  const int64_t D = g.channels(), width = bundle.groups * D, first = bundle.group * D;
  const int64_t statistic = bundle.line * g.G + bundle.group;
  Scratch<Means> means(bundle.groups);
  if (a.sums()) {
    Scratch<C> mean(width);
    for (int64_t j = 0; j < width; j++) mean[j] = a.mean[statistic + j / D];
    Scratch<Pair<C>> sums(width);
    Scratch<Pair<double>> table(g.images() * width);
    for (int64_t n = 0; n < g.images(); n++) {
      const int64_t at = g.plane(bundle.image + n, first);
      sums_of_planes(a.dy + at, a.x + at, mean.data(), width, g.S, sums.data());
      for (int64_t j = 0; j < width; j++) table[n * width + j] = {sums[j].a, sums[j].b};
    }
    means = gather(a, bundle, table);
  }
  if (!a.dx) return;
  Scratch<Blend<Same<C>>> blends(width);
  for (int64_t j = 0; j < width; j++) blends[j] = a.template blend<C>(statistic + j / D, first + j, means[j / D]);
  for (int64_t n = 0; n < g.images(); n++) {
    const int64_t at = g.plane(bundle.image + n, first);
    blend_planes(a.dy + at, a.x + at, blends.data(), a.dx + at, width, g.S);
  }
}

// Whether that serves: nothing but the planes themselves, none of which C is too narrow for.
template <class T>
bool small(const Backward<T>& a, const Bundle& bundle, bool past) {
  if (a.grid.S > kSmall || past || !a.plain() || a.dskip || a.power != 2) return false;
  const int64_t first = bundle.line * a.grid.G + bundle.group;
  for (int64_t i = first; i < first + bundle.groups; i++)
    if (a.wide(i)) return false;
  return true;
}

template <class T>
void backward_planes(const Backward<T>& a) {
  const Grid& g = a.grid;
  const bool past = large<T>(g.N * g.C * g.S) && g.S * sizeof(T) % 64 == 0;
  const Bundles bundles(g, 2 * sizeof(T));
  share(bundles.count(), g.N * g.C * g.S, [&](int64_t i, bool parallel) {
    const Bundle bundle = bundles[i];
    const int64_t first = bundle.group * g.channels(), width = bundle.groups * g.channels();
    const int64_t statistic = bundle.line * g.G + bundle.group;
    if (a.lost(statistic, bundle.groups)) measure(a.statistics(), bundle, parallel);
    if (!parallel && small(a, bundle, past)) return backward_small(a, bundle);
    Scratch<Means> means(bundle.groups);
    const auto scratch = a.scratch(g.images() * width * g.S);
    const auto kept = [&](const Run& r, int64_t s) {
      return !scratch ? nullptr : &scratch[((r.image - bundle.image) * width + r.c - first) * g.S + s];
    };
    if (a.sums()) {
      Scratch<Pair<double>> table(g.images() * width * segments(g.S));
      each_run(parallel, g, bundle, 1, [&](const Run& r) {
        const int64_t plane = g.plane(r.image, r.c);
        const auto scale = a.scale(r.statistic, r.c);
        Pair<double> total = {};
        for_each_step(r.begin, r.begin + r.n, [&](int64_t j, int64_t m) {
          a.with_du(plane + j, scale, m, kept(r, j), [&](const auto* du) {
            const auto part = sums_about(du, a.x + plane + j, a.mean[r.statistic], m);
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
      const auto scale = a.scale(r.statistic, r.c);
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
      each_du([&](const auto* du, int64_t at, int64_t m) { a.write(du, at, blend, m, past); });
    });
    if (past) stream_fence();
  });
}

}  // namespace normkernels
