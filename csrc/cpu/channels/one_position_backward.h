// Images of one position, backward: the sums of a group, then dx and its share of the gradients of the parameters.
#pragma once

#include "cpu/channels/backward.h"
#include "cpu/channels/one_position.h"

namespace normkernels {

template <class T>
bool groups_are_rows(const Backward<T>& a) {
  const bool usual = !a.rule && !a.centre && !a.mean_dy && a.power == 2;
  return groups_are_rows(a.of) && usual && a.dx && !a.dskip;
}

template <class T>
void backward_groups(const Backward<T>& a) {
  using C = compute_t<T>;
  const Grid& g = a.of.grid;
  const int64_t D = g.channels(), parts = chunks(g);
  const bool nontemporal = large<T>(g.N * g.C, 3);
  share(parts, g.N * g.C, false, [&](int64_t chunk, bool) {
    const auto line = [&](C* table, int64_t c) { return table ? table + chunk * g.C + c : nullptr; };
    for (int64_t n = chunk * g.N / parts; n < (chunk + 1) * g.N / parts; n++) {
      if (a.lost(n * g.G, g.G)) measure(a.statistics(), Bundle{n, n, 0, g.G}, false);
      each_group(g, n, [&](int64_t statistic, int64_t at, int64_t c) {
        const T *dy = a.dy + at, *x = a.of.x + at;
        const auto row = a.of.row(statistic, c);
        const Pair<C> sums = a.training ? gradient_sums(dy, x, row, D) : Pair<C>{};
        const Pair<C> means = {sums.a / static_cast<C>(D), sums.b / static_cast<C>(D)};
        past_the_caches(nontemporal, a.dx + at, D, [&](T* dx) {
          gradients(dy, x, static_cast<const T*>(nullptr), row, means, dx, line(a.dweight, c), line(a.dbias, c), D);
        });
      });
    }
    nontemporal_fence();
  });
}

}  // namespace normkernels
