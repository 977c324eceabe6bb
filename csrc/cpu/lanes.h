// Loops that vectorise: sums in many lanes, and maps.
#pragma once

#include "simd.h"

namespace normkernels {

template <class C>
struct Pair {
  C a, b;
};

// Lanes of a sum: enough additions in flight that none waits for the one before, over adjacent elements.
constexpr int64_t kLanes = 64;

template <int64_t kWidth = kLanes / 2, class C>
NK_INLINE C add_lanes(C* lanes) {
  for (int64_t l = 0; l < kWidth; l++) lanes[l] += lanes[l + kWidth];
  if constexpr (kWidth > 1) return add_lanes<kWidth / 2>(lanes);
  return lanes[0];
}

// The sum of f(i)
template <class C, class F>
NK_INLINE C sum(int64_t n, const F& f) {
  C lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int64_t l = 0; l < kLanes; l++) lanes[l] += f(i + l);
  }
  for (int64_t l = 0; l < n - i; l++) lanes[l] += f(i + l);
  return add_lanes(lanes);
}

// The sums of both members of f(i)
template <class C, class F>
NK_INLINE Pair<C> sum_pairs(int64_t n, const F& f) {
  C a[kLanes] = {}, b[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int64_t l = 0; l < kLanes; l++) {
      const Pair<C> p = f(i + l);
      a[l] += p.a;
      b[l] += p.b;
    }
  }
  for (int64_t l = 0; l < n - i; l++) {
    const Pair<C> p = f(i + l);
    a[l] += p.a;
    b[l] += p.b;
  }
  return {add_lanes(a), add_lanes(b)};
}

// out[i] = f(i)
template <class Out, class F>
NK_INLINE void map(Out* out, int64_t n, const F& f) {
#pragma omp simd
  for (int64_t i = 0; i < n; i++) out[i] = store<Out>(f(i));
}

}  // namespace normkernels
