// A few numbers as one value, in a register: a short row or plane is over before a loop over an array of them has
// begun. V is a vector of an instruction set's own width: of a wider one gcc keeps every value in memory. What is
// shorter than a few takes other ways.
#pragma once

#include <algorithm>
#include <type_traits>
#include <utility>

#include "cpu/base/lanes.h"

namespace normkernels {

// f(how many bytes a vector has, as a type), compiled for the instruction set that this machine has
template <int64_t kBytes>
using Bytes = std::integral_constant<int64_t, kBytes>;
#if defined(NK_AVX512)
template <class F>
NK_AVX512 void on_avx512(const F& f) {
  f(Bytes<64>());
}
template <class F>
NK_AVX2 void on_avx2(const F& f) {
  f(Bytes<32>());
}
#endif
template <class F>
void with_vectors(const F& f) {
#if defined(NK_AVX512)
  if (kAvx512) return on_avx512(f);
  if (kAvx2) return on_avx2(f);
#endif
  f(Bytes<kVectorBytes>());
}

#if defined(NK_SHUFFLES)
template <class C, int64_t kWidth>
using Lanes [[gnu::vector_size(kWidth * sizeof(C))]] = C;

// What a vector of so many bytes holds
template <class C, int64_t kBytes>
using Vector = Lanes<C, kBytes / static_cast<int64_t>(sizeof(C))>;

template <class V>
using Element = std::remove_cvref_t<decltype(std::declval<V&>()[0])>;
template <class V>
constexpr int64_t kWidth = sizeof(V) / sizeof(Element<V>);

// Lanes first, first + step, ... of v and w, which lie one behind the other, as many as either has
template <int64_t kFirst, int64_t kStep, class V, int64_t... k>
NK_INLINE auto picked(const V& v, const V& w, std::integer_sequence<int64_t, k...>) {
  return __builtin_shufflevector(v, w, (kFirst + kStep * k)...);
}

// As add_lanes.
template <class V>
NK_INLINE Element<V> add_up(const V& v) {
  if constexpr (kWidth<V> == 2) {
    return v[0] + v[1];
  } else if constexpr (kWidth<V> == 4) {
    return (v[0] + v[2]) + (v[1] + v[3]);
  } else {
    using Half = std::make_integer_sequence<int64_t, kWidth<V> / 2>;
    const auto sums = picked<0, 1>(v, v, Half()) + picked<kWidth<V> / 2, 1>(v, v, Half());
    return add_up(sums);
  }
}

// float16 as instructions of AVX-512 and AVX2 convert it
template <class V>
using Halves = Lanes<short, kWidth<V>>;
#if defined(NK_AVX512)
template <class V>
constexpr bool kConverts = sizeof(V) >= 32 && std::is_same_v<Element<V>, float>;
template <class V>
NK_INLINE V from_halves(const Halves<V>& bits) {
  constexpr int kCurrentRounding = 4;
  if constexpr (sizeof(V) == 64) return __builtin_ia32_vcvtph2ps512_mask(bits, V{}, -1, kCurrentRounding);
  if constexpr (sizeof(V) == 32) return __builtin_ia32_vcvtph2ps256(bits);
}
template <class V>
NK_INLINE Halves<V> to_halves(const V& v) {
  constexpr int kNearestEven = 0;
  if constexpr (sizeof(V) == 64) return __builtin_ia32_vcvtps2ph512_mask(v, kNearestEven, Halves<V>{}, -1);
  if constexpr (sizeof(V) == 32) return __builtin_ia32_vcvtps2ph256(v, kNearestEven);
}
#else
template <class V>
constexpr bool kConverts = false;
template <class V>
V from_halves(const Halves<V>& bits);
template <class V>
Halves<V> to_halves(const V& v);
#endif

template <class V, class T>
NK_INLINE V take(const T* from) {
  static_assert(sizeof(V) >= 16);  // no element
  if constexpr (std::is_same_v<T, float16> && kConverts<V>) {
    Halves<V> bits;
    std::memcpy(&bits, from, sizeof(bits));
    return from_halves<V>(bits);
  } else if constexpr (sizeof(T) == 2) {
    Lanes<uint16_t, kWidth<V>> v;
    std::memcpy(&v, from, sizeof(v));
    return widened<V>(__builtin_convertvector(v, Lanes<uint32_t, kWidth<V>>), T{});
  } else {
    V v;
    std::memcpy(&v, from, sizeof(v));
    return v;
  }
}

template <class V, class T>
NK_INLINE void put(const V& v, T* to) {
  if constexpr (std::is_same_v<T, float16> && kConverts<V>) {
    const auto bits = to_halves(v);
    std::memcpy(to, &bits, sizeof(bits));
  } else if constexpr (sizeof(T) == 2) {
    const auto words = narrowed<Lanes<uint32_t, kWidth<V>>>(v, T{});
    const auto halves = __builtin_convertvector(words, Lanes<uint16_t, kWidth<V>>);
    std::memcpy(to, &halves, sizeof(halves));
  } else {
    std::memcpy(to, &v, sizeof(v));
  }
}

// In lanes that have not the bit kStep the sum of two lanes of v, in those that have it of w: one lane moves, not two.
template <int64_t kStep, class V, int64_t... k>
NK_INLINE V add_neighbours(const V& v, const V& w, std::integer_sequence<int64_t, k...>) {
  return __builtin_shufflevector(v, w, (k + (k & kStep ? kWidth<V> : 0))...) +
         __builtin_shufflevector(v, w, ((k ^ kStep) + (k & kStep ? kWidth<V> : 0))...);
}

// The sums of as many values as they have lanes, a lane each; the values are lost.
template <int64_t kStep = 1, class V>
NK_INLINE V add_up_each(V* v) {
  if constexpr (kStep == kWidth<V>) {
    return v[0];
  } else {
    for (int64_t i = 0; i < kWidth<V> / (2 * kStep); i++)
      v[i] = add_neighbours<kStep>(v[2 * i], v[2 * i + 1], std::make_integer_sequence<int64_t, kWidth<V>>());
    return add_up_each<2 * kStep>(v);
  }
}

// The lanes that are new in the last ones of a row, which end where it ends; the others came before.
template <class V>
using Fresh = decltype(V{} < V{});
template <class V>
NK_INLINE Fresh<V> fresh(int64_t N) {
  V lane;
  for (int64_t l = 0; l < kWidth<V>; l++) lane[l] = static_cast<Element<V>>(l);
  return lane >= static_cast<Element<V>>(kWidth<V> - N % kWidth<V>);
}

// A product by itself: where the compiler sees a sum follow, it may round both at once, and where a branch lies between
// it does not, but a row has the same bits in any loop.
template <class V>
NK_INLINE V rounded(V v) {
#if defined(__x86_64__)
  asm("" : "+v"(v));
#elif defined(__aarch64__)
  asm("" : "+w"(v));
#endif
  return v;
}

// f(position, which of the sums) of all lanes but the last ones
template <class V, class F>
NK_INLINE void each_few(int64_t N, const F& f) {
  constexpr int64_t kMany = 4;
  int64_t j = 0;
  for (; j + kMany * kWidth<V> <= N; j += kMany * kWidth<V>)
    for (int64_t k = 0; k < kMany; k++) f(j + k * kWidth<V>, k);
  for (; j + kWidth<V> <= N; j += kWidth<V>) f(j, 0);
}

// Four sums, so that no addition waits for the one before.
template <class V>
struct Sum {
  V part[4] = {};
  NK_INLINE Element<V> total() const { return add_up((part[0] + part[1]) + (part[2] + part[3])); }
};

constexpr int64_t kSumPart = 4096;  // elements of one sum: 64 to a lane of AVX-512, and a row of two tiles at least

// out[j] = f(j) of a few; at least so many, and no input of f in out
template <class V, class T, class F>
NK_INLINE void map_few(T* out, int64_t n, const F& f) {
  int64_t j = 0;
  for (; j + kWidth<V> <= n; j += kWidth<V>) put(f(j), out + j);
  if (j < n) put(f(n - kWidth<V>), out + n - kWidth<V>);
}

#else  // one at a time, where no row and no plane is taken so
template <class C, int64_t>
using Vector = C;
template <class V>
using Element = V;
template <class V, class T>
V take(const T* from) {
  return load(*from);
}
#endif

}  // namespace normkernels
