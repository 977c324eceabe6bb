// A few numbers as one value, which the compiler splits into the registers of each instruction set: a short row or
// plane is over before a loop over an array of them has begun. What is shorter than a few takes other ways.
#pragma once

#include <algorithm>

#include "cpu/base/lanes.h"

#if defined(NK_SHUFFLES)
namespace normkernels {

template <class C, int64_t kWidth>
using Lanes [[gnu::vector_size(kWidth * sizeof(C))]] = C;

// As add_lanes.
template <class C>
NK_INLINE C add_up(Lanes<C, kFewLanes> v) {
  const auto w = __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7) +
                 __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15);
  const auto u = __builtin_shufflevector(w, w, 0, 1, 2, 3) + __builtin_shufflevector(w, w, 4, 5, 6, 7);
  return (u[0] + u[2]) + (u[1] + u[3]);
}

template <class C>
using Few = Lanes<C, kFewLanes>;
using Words = Lanes<uint32_t, kFewLanes>;
using Halves = Lanes<uint16_t, kFewLanes>;

template <class T>
NK_INLINE Few<compute_t<T>> few(const T* from) {
  if constexpr (sizeof(T) == 2) {
    Halves v;
    std::memcpy(&v, from, sizeof(v));
    return widened<Few<float>>(__builtin_convertvector(v, Words), T{});
  } else {
    Few<T> v;
    std::memcpy(&v, from, sizeof(v));
    return v;
  }
}

template <class T>
NK_INLINE void put(const Few<compute_t<T>>& v, T* to) {
  if constexpr (sizeof(T) == 2) {
    const Halves halves = __builtin_convertvector(narrowed<Words>(v, T{}), Halves);
    std::memcpy(to, &halves, sizeof(halves));
  } else {
    std::memcpy(to, &v, sizeof(v));
  }
}

// The sums of sixteen values, a lane each; the values are lost.
template <class C>
NK_INLINE Few<C> add_up_each(Few<C>* v) {
  for (int64_t half = kFewLanes / 2; half > 0; half /= 2)
    for (int64_t i = 0; i < half; i++) {
      const Few<C> a = v[2 * i], b = v[2 * i + 1];
      v[i] = __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30) +
             __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
    }
  return v[0];
}

// The lanes that are new in the last ones of a row, which end where it ends; the others came before.
template <class C>
using Fresh = decltype(Few<C>{} < Few<C>{});
template <class C>
NK_INLINE Fresh<C> fresh(int64_t N) {
  Few<C> lane;
  for (int64_t l = 0; l < kFewLanes; l++) lane[l] = static_cast<C>(l);
  return lane >= static_cast<C>(kFewLanes - N % kFewLanes);
}

// f(position, which of the sums) of all lanes but the last ones
template <class F>
NK_INLINE void each_few(int64_t N, const F& f) {
  constexpr int64_t kMany = 4;
  int64_t j = 0;
  for (; j + kMany * kFewLanes <= N; j += kMany * kFewLanes)
    for (int64_t k = 0; k < kMany; k++) f(j + k * kFewLanes, k);
  for (; j + kFewLanes <= N; j += kFewLanes) f(j, 0);
}

// Four sums, so that no addition waits for the one before.
template <class C>
struct Sum {
  Few<C> part[4] = {};
  NK_INLINE C total() const { return add_up<C>((part[0] + part[1]) + (part[2] + part[3])); }
};

constexpr int64_t kSumPart = 4096;  // elements: 64 to a lane of a sum

// out[j] = f(j) of a few; at least so many, and no input of f in out
template <class T, class F>
NK_INLINE void map_few(T* out, int64_t n, const F& f) {
  int64_t j = 0;
  for (; j + kFewLanes <= n; j += kFewLanes) put(f(j), out + j);
  if (j < n) put(f(n - kFewLanes), out + n - kFewLanes);
}

}  // namespace normkernels
#endif
