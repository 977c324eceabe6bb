// Rows of so few values that all of them stay in registers: V of them at once, a few or two times as many. The last V
// of a row ends where the row does; what overlaps the one before does not count.
#pragma once

#include "cpu/base/twos.h"

namespace normkernels {

constexpr int64_t kLines = 8;  // registers for a row's values, and as many for each of their gradients and sums

inline bool in_registers(int64_t N) {
#if defined(NK_TWOS)
  return kAvx512 && N >= kFewLanes && N <= kLines * kFewLanes;
#else
  return false;
#endif
}

#if defined(NK_TWOS)
template <class T>
NK_INLINE void keep(const Few<float>& v, T* to) {
  put(v, to);
}
template <class T>
NK_INLINE void keep(const Twos<>& v, T* to) {
  put<false>(v, to);
}
NK_INLINE float total(const Few<float>& v) { return add_up(v); }
NK_INLINE float total(const Twos<>& v) { return add_up(v.even + v.odd); }

// Of a row of N: kParts times V, no rest where V is two times a few.
template <class V, int64_t kParts>
struct Parts {
  int64_t N;
  Fresh<Few<float>> last = fresh<Few<float>>(N);
  bool rest = N % kWidth<V>;

  NK_INLINE int64_t column(int64_t k) const { return k + 1 < kParts ? k * kWidth<V> : N - kWidth<V>; }
  NK_INLINE V counted(int64_t k, const V& v) const {
    if constexpr (kWidth<V> == kFewLanes)
      if (k + 1 == kParts && rest) return last ? v : V{};
    return v;
  }
};

// f(Parts of a row of N), N at most kParts times V
template <class V, int64_t kParts = kLines * kFewLanes / kWidth<V>, class F>
void with_parts(int64_t N, const F& f) {
  if constexpr (kParts > 1)
    if (N <= (kParts - 1) * kWidth<V>) return with_parts<V, kParts - 1>(N, f);
  f(Parts<V, kParts>{N});
}
#endif

}  // namespace normkernels
