// Images of one position, forward: a group is a row, with a weight and a bias for each of its elements, and goes as one
// where it is long enough for loops of its own.
#pragma once

#include "cpu/channels/planes.h"

namespace normkernels {

constexpr int64_t kLeastRow = 16;

template <class T>
bool groups_are_rows(const Channels<T>& of) {
  const Grid& g = of.grid;
  return g.S == 1 && g.B == g.N && g.channels() >= kLeastRow && g.channels() <= kTile && of.plain() && !of.skip;
}

// f(statistic, its first element, its first channel) for the groups of image n
template <class F>
void each_group(const Grid& g, int64_t n, const F& f) {
  for (int64_t k = 0; k < g.G; k++) f(n * g.G + k, n * g.C + k * g.channels(), k * g.channels());
}

// f(where results go), which then lie from to on
template <class T, class F>
void past_the_caches(bool nontemporal, T* to, int64_t n, const F& f) {
  if (!nontemporal) return f(to);
  alignas(64) T out[kTile];
  f(out);
  copy_nontemporal(out, to, n * sizeof(T));
}

template <class T>
void forward_groups(const Forward<T>& a) {
  const Grid& g = a.of.grid;
  const bool nontemporal = large<T>(g.N * g.C);
  share(g.N, g.N * g.C, false, [&](int64_t n, bool) {
    if (a.training) {
      measure(a, Bundle{n, n, 0, g.G}, false);
      if (a.rule) a.rule(n * g.G, g.G);
    }
    if (!a.y) return;
    each_group(g, n, [&](int64_t statistic, int64_t at, int64_t c) {
      past_the_caches(nontemporal, a.y + at, g.channels(),
                      [&](T* y) { affine_tile(a.of.x + at, a.of.row(statistic, c), y, g.channels()); });
    });
    nontemporal_fence();
  });
}

}  // namespace normkernels
