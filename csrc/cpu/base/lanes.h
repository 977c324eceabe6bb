// Loops that vectorise: sums in many lanes, and maps.
#pragma once

#include "cpu/base/simd.h"

namespace normkernels {

// Lanes of a sum: enough additions in flight that none waits for the one before, over adjacent elements.
constexpr int64_t kLanes = 64;

template <int64_t kWidth, class C>
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
  return add_lanes<kLanes / 2>(lanes);
}

// The sums of both members of f(i)
template <class C, int64_t kWidth = kLanes, class F>
NK_INLINE Pair<C> sum_pairs(int64_t n, const F& f) {
  C a[kWidth] = {}, b[kWidth] = {};
  int64_t i = 0;
  for (; i + kWidth <= n; i += kWidth) {
    for (int64_t l = 0; l < kWidth; l++) {
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
  return {add_lanes<kWidth / 2>(a), add_lanes<kWidth / 2>(b)};
}

// out[i] = f(i)
template <class Out, class F>
NK_INLINE void map(Out* out, int64_t n, const F& f) {
#pragma omp simd
  for (int64_t i = 0; i < n; i++) out[i] = store<Out>(f(i));
}

// out[i] = f(0, p[i], q[i]) of bfloat16, two to a word.
template <class F>
NK_INLINE void map_pairs(const bfloat16* p, const bfloat16* q, bfloat16* out, int64_t n, const F& f) {
#pragma omp simd
  for (int64_t i = 0; i < n / 2; i++) {
    const Pair<float> a = load_pair(p + 2 * i), b = load_pair(q + 2 * i);
    store_pair({f(0, a.a, b.a), f(0, a.b, b.b)}, out + 2 * i);
  }
  if (n % 2) out[n - 1] = store<bfloat16>(f(0, load(p[n - 1]), load(q[n - 1])));
}

#if defined(NK_AVX512)
// So many bytes past the caches
template <int64_t kBytes>
using Bits [[gnu::vector_size(kBytes)]] = long long;
template <int64_t kBytes>
NK_INLINE void stream_vector(const void* from, void* to) {
  Bits<kBytes> bits;
  std::memcpy(&bits, from, kBytes);
  if constexpr (kBytes == 64) {
    __builtin_ia32_movntdq512(static_cast<Bits<64>*>(to), bits);
  } else {
    __builtin_ia32_movntdq256(static_cast<Bits<32>*>(to), bits);
  }
}

// out[i] = f(i, p[i], q[i]) past the caches, a cache line at a time, by vectors of so many bytes.
template <int64_t kBytes, class T, class P, class Q, class F>
NK_INLINE void map_nontemporal(const P* p, const Q* q, T* out, int64_t n, const F& f) {
  constexpr int64_t kLine = 64 / sizeof(T);
  for (int64_t k = 0; k < n; k += kLine) {
    alignas(64) T line[kLine];
#pragma omp simd
    for (int64_t i = 0; i < kLine; i++) line[i] = store<T>(f(k + i, load(p[k + i]), load(q[k + i])));
    for (int64_t i = 0; i < kLine; i += kBytes / sizeof(T)) stream_vector<kBytes>(line + i, out + k + i);
  }
}
#endif

}  // namespace normkernels
