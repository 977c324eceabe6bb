// Channels whose planes are contiguous: x is (N, C, S).
//
// Statistics are taken in bundles of adjacent groups, so that memory is read in long runs and, where a bundle fits in
// the second-level cache, read from memory once.
#pragma once

#include "cpu/channels/forward.h"

namespace normkernels {

constexpr int64_t kRunBytes = 1 << 16;  // of adjacent planes read in a row at least: every jump costs the prefetcher
constexpr int64_t kShortRun = 1 << 13;  // the same where work in one cache is cut for the threads
constexpr int64_t kBundle = 3 << 17;    // bytes of x and dy that a second sweep still finds in the second-level cache

// Groups [group, group + groups) of the images [image, image + grid.images()): statistics of line image / images().
// Backward, chunk tells which line of the tables of dweight and dbias is theirs.
struct Bundle {
  int64_t line, image, group, groups, chunk = 0;
};

// How a grid is cut into bundles; bytes of one position.
struct Bundles {
  Grid grid;
  int64_t groups;  // of a bundle at most

  Bundles(const Grid& g, int64_t bytes) : grid(g) {
    const int64_t run = g.channels() * g.S * bytes, fit = kBundle / std::max<int64_t>(run * g.images(), 1);
    groups = std::clamp<int64_t>(fit, std::min<int64_t>(g.G, 1 + kRunBytes / run), g.G);
    const int64_t parts = std::clamp<int64_t>(std::bit_floor<uint64_t>(g.N * g.C * g.S / kPart), 1, kParts);
    const int64_t of_a_line = std::max<int64_t>(1, parts / std::max<int64_t>(g.B, 1));
    const int64_t eights = g.channels() == 1 ? 8 : 1;  // planes that are measured at once
    const int64_t few = std::max((g.G + of_a_line - 1) / of_a_line, 1 + kShortRun / run);
    groups = std::min(groups, (few + eights - 1) / eights * eights);
  }
  int64_t per_line() const { return (grid.G + groups - 1) / groups; }
  // Bundle i of a line
  Bundle at(int64_t line, int64_t i, int64_t chunk = 0) const {
    const int64_t group = i * groups;
    return {line, line * grid.images(), group, std::min(groups, grid.G - group), chunk};
  }
};

// One segment of a run of adjacent channels: element at of n, in the statistic of channel c; index counts segments
// within runs, runs within images.
struct Run {
  int64_t index, statistic, image, c, begin, n;
};

// f(run) for every segment of every run of so many adjacent channels of a bundle's images
template <class F>
void each_run(bool parallel, const Grid& g, const Bundle& bundle, int64_t channels, const F& f) {
  const int64_t length = channels * g.S, parts = segments(length), per_group = g.channels() / channels;
  const int64_t first = bundle.group * g.channels(), statistic = bundle.line * g.G + bundle.group;
  const auto visit = [&](int64_t index, int64_t image, int64_t group, int64_t run, int64_t part) {
    const int64_t c = first + (group * per_group + run) * channels, begin = part * kSegment;
    f(Run{index, statistic + group, bundle.image + image, c, begin, std::min(kSegment, length - begin)});
  };
  if (parallel) {
    const int64_t line = bundle.groups * per_group * parts, group = per_group * parts;
    return for_each(g.images() * line,
                    [&](int64_t i) { visit(i, i / line, i % line / group, i % group / parts, i % parts); });
  }
  int64_t index = 0;
  for (int64_t image = 0; image < g.images(); image++)
    for (int64_t group = 0; group < bundle.groups; group++)
      for (int64_t run = 0; run < per_group; run++)
        for (int64_t part = 0; part < parts; part++) visit(index++, image, group, run, part);
}

// From run to run of tiles the mean so far is what the next sums are taken about.
template <class T>
Moments run_moments(const T* x, int64_t n, double eps) {
  Moments total;
  compute_t<T> about = load(x[0]);
  for_each_tile(0, n, [&](int64_t j, int64_t count) {
    merge(total, moments_about(x + j, about, count, eps));
    about = static_cast<compute_t<T>>(total.mean);
  });
  return total;
}

// mean and var of every group of a bundle, from the moments of its runs
template <class T>
void pool(const Forward<T>& a, const Bundle& bundle, const Scratch<Moments>& table) {
  const int64_t parts = segments(a.of.grid.channels() * a.of.grid.S), line = bundle.groups * parts;
  for (int64_t k = 0; k < bundle.groups; k++) {
    const auto sum = [&](const auto& f) {
      double total = 0;
      for (int64_t n = 0; n < a.of.grid.images(); n++)
        for (int64_t p = 0; p < parts; p++) total += f(table[n * line + k * parts + p]);
      return total / a.of.grid.count();
    };
    const double mean = sum([](const Moments& m) { return m.count * m.mean; });
    const double var = sum([=](const Moments& m) { return m.m2 + m.count * (m.mean - mean) * (m.mean - mean); });
    a.keep(bundle.line * a.of.grid.G + bundle.group + k, mean, var);
  }
}

// Planes that cost less than the walk to them: a thread takes those of an image at once, and a bundle alone, unless
// that were too much for one.
inline bool small_planes(const Grid& g) { return g.S <= 1024 && g.count() <= 1 << 18; }

// The same of small planes, each a channel's or those of a group: those of an image at once, about a value of each.
template <class T>
bool measure_small(const Forward<T>& a, const Bundle& bundle) {
  using C = compute_t<T>;
  const Grid& g = a.of.grid;
  const int64_t width = bundle.groups, n = g.channels() * g.S, near = std::min(kFirst, n);
  const auto image = [&](int64_t i) { return a.of.x + g.plane(bundle.image + i, bundle.group * g.channels()); };
  Scratch<C> first(width);
  const auto set_first = [&, x = image(0)](auto values) {  // their number, known where it can be
    for (int64_t j = 0; j < width; j++) {
      C sum = 0;
      for (int64_t i = 0; i < values; i++) sum += load(x[j * n + i]);
      first[j] = sum / static_cast<C>(values);
    }
  };
  near == kFirst ? set_first(std::integral_constant<int64_t, kFirst>()) : set_first(near);
  return keep_moments(a, bundle.line * g.G + bundle.group, first, [&](const Scratch<C>& about) {
    Raw<C> sums(2 * width);
    Scratch<Pair<double>> totals(width);
    for (int64_t i = 0; i < g.images(); i++) {
      moments_of_planes(image(i), about.data(), width, n, sums.data(), &sums[width]);
      for (int64_t j = 0; j < width; j++) totals[j] = {totals[j].a + sums[j], totals[j].b + sums[width + j]};
    }
    return totals;
  });
}

template <class T>
void measure(const Forward<T>& a, const Bundle& bundle, bool parallel) {
  const Grid& g = a.of.grid;
  const bool one_sum = g.channels() == 1 || (g.images() == 1 && g.channels() * g.S <= kTile);
  if (small_planes(g) && one_sum && measure_small(a, bundle)) return;
  Scratch<Moments> table(g.images() * bundle.groups * segments(g.channels() * g.S));
  each_run(parallel, g, bundle, g.channels(), [&](const Run& r) {
    table[r.index] = run_moments(a.of.x + g.plane(r.image, r.c) + r.begin, r.n, a.of.eps);
  });
  pool(a, bundle, table);
}

template <class T>
Groups<compute_t<T>> groups_of(const Channels<T>& of, const Bundle& bundle) {
  const Grid& g = of.grid;
  return of.groups(bundle.line * g.G + bundle.group, bundle.groups, bundle.group * g.channels());
}

// f(first plane, planes) for as many small planes at once as a tile holds
template <class F>
void each_tile_of_planes(int64_t planes, int64_t S, const F& f) {
  for (int64_t p = 0, many = kTile / S; p < planes; p += many) f(p, std::min(many, planes - p));
}

// y of a bundle of small planes, those of an image at once
template <class T>
void write_small(const Forward<T>& a, const Bundle& bundle) {
  const Grid& g = a.of.grid;
  const ChannelScale<compute_t<T>> scales(a.of, groups_of(a.of, bundle));
  const int64_t width = scales.mean.size(), results = g.N * g.C * g.S;
  for (int64_t n = 0; n < g.images(); n++) {
    const int64_t at = g.plane(bundle.image + n, bundle.group * g.channels());
    const T *x = a.of.x + at, *skip = a.of.skip ? a.of.skip + at : nullptr;
    if (a.of.plain() || a.of.gated()) {
      scale_planes(x, skip, scales.at(0), a.y + at, width, g.S, results);
      continue;
    }
    alignas(64) compute_t<T> u[kTile];
    each_tile_of_planes(width, g.S, [&](int64_t p, int64_t count) {
      scale_planes(x + p * g.S, skip ? skip + p * g.S : nullptr, scales.at(p), u, count, g.S);
      a.of.complete(at + p * g.S, u, count * g.S);
      store_tile(u, a.y + at + p * g.S, count * g.S);
    });
  }
}

template <class T>
void forward_planes(Forward<T> a) {
  const Grid g = a.of.grid;
  const bool nontemporal = large<T>(g.N * g.C * g.S) && g.S * sizeof(T) % 64 == 0;
  const Bundles bundles(g, sizeof(T));
  if (a.training && g.images() == 1) a.of.ahead = bundles.groups * g.channels() * g.S;  // this one's x is there
  share(g.B * bundles.per_line(), g.N * g.C * g.S, !small_planes(g), [&](int64_t i, bool parallel) {
    const Bundle bundle = bundles.at(i / bundles.per_line(), i % bundles.per_line());
    if (a.training) {
      measure(a, bundle, parallel);
      if (a.rule) a.rule(bundle.line * g.G + bundle.group, bundle.groups);
    }
    if (!a.y) return;
    if (!nontemporal && small_planes(g)) return write_small(a, bundle);
    each_run(parallel, g, bundle, 1, [&](const Run& r) {
      const auto scale = a.of.scale(r.statistic, r.c);
      const int64_t at = g.plane(r.image, r.c) + r.begin;
      for_each_part(at, at + r.n, a.of.most(),
                    [&](int64_t j, int64_t m) { a.of.write(j, scale, a.y + j, m, nontemporal); });
    });
    if (nontemporal) nontemporal_fence();
  });
}

}  // namespace normkernels
