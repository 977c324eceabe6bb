// A sweep over the rows of an (M, N) tensor: measure each row, then write what follows from that, one read of the data.
//
// A row is walked in tiles that stay in the first-level cache. Tiles merge into segments and segments into rows in an
// order fixed by N, so neither the other rows nor the number of threads changes a bit.
//
// A sweep has M, N and
//   group()                    rows that are taken together, kGroup at most: because they share parameters
//   measure(m, j, n)           of a tile: a part with count and merge(), empty at first
//   finish(m, part)            of a whole row: what write() needs
//   write(m, j, n, finished)   a tile of the result
//   kPrefetch                  whether prefetch(m, j, n) asks for the data of later rows
#pragma once

#include <array>
#include <utility>

#include "cpu/base/work.h"

namespace normkernels {

template <class Sweep>
using part_t = decltype(std::declval<const Sweep&>().measure(0, 0, 0));
template <class Sweep>
using finished_t = decltype(std::declval<const Sweep&>().finish(0, part_t<Sweep>()));

// Rows are taken in groups that fit in the second-level cache.
template <class Sweep>
void sweep_rows(const Sweep& a, int64_t begin, int64_t end) {
  const int64_t rows = a.group();
  std::array<finished_t<Sweep>, kGroup> finished;
  for (int64_t first = begin; first < end; first += rows) {
    const int64_t last = std::min(end, first + rows);
    for (int64_t m = first; m < last; m++) {
      part_t<Sweep> row{}, segment{};
      for_each_tile(0, a.N, [&](int64_t j, int64_t n) {
        merge(segment, a.measure(m, j, n));
        if ((j + n) % kSegment == 0 || j + n == a.N) merge(row, std::exchange(segment, {}));
      });
      finished[m - first] = a.finish(m, row);
    }
    constexpr int64_t step = Sweep::kPrefetch ? kStep : kTile;
    for (int64_t j = 0; j < a.N; j += step) {
      const int64_t n = std::min(step, a.N - j);
      for (int64_t m = first; m < last; m++) {
        if constexpr (Sweep::kPrefetch)
          if (m + rows < end) a.prefetch(m + rows, j, n);
        a.write(m, j, n, finished[m - first]);
      }
    }
  }
  nontemporal_fence();
}

// Shares one long row among the threads.
template <class Sweep>
void sweep_split(const Sweep& a, int64_t m) {
  Scratch<part_t<Sweep>> parts(segments(a.N));
  for_each_segment(a.N, [&](int64_t s, int64_t begin, int64_t end) {
    for_each_tile(begin, end, [&](int64_t j, int64_t n) { merge(parts[s], a.measure(m, j, n)); });
  });
  part_t<Sweep> row{};
  for (const auto& part : parts) merge(row, part);
  const finished_t<Sweep> finished = a.finish(m, row);
  for_each_segment(a.N, [&](int64_t, int64_t begin, int64_t end) {
    for_each_tile(begin, end, [&](int64_t j, int64_t n) { a.write(m, j, n, finished); });
    nontemporal_fence();
  });
}

template <class Sweep>
void sweep(const Sweep& a) {
  if (split_rows(a.M, a.N)) {
    for (int64_t m = 0; m < a.M; m++) sweep_split(a, m);
  } else {
    parallel_for(0, a.M, grain(a.N), [&](int64_t begin, int64_t end) { sweep_rows(a, begin, end); });
  }
}

}  // namespace normkernels
