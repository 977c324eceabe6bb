// Elements taken two vectors at a time, 32 with AVX-512 and 16 with AVX2. Of bfloat16 the even ones and the odd ones
// are a vector each, two to a word, and no lane has to move; of float16 the first and the last, as its conversions take
// them, and so of float.
#pragma once

#include <type_traits>

#include "cpu/base/few.h"

namespace normkernels {

#if defined(NK_TWOS)
// f(how many bytes a vector has, as a type) where there are such vectors, and whether there are
inline const bool kTwos = kAvx512 || kAvx2;
template <class F>
void with_twos(const F& f) {
  kAvx512 ? on_avx512(f) : on_avx2(f);
}

template <class C>
using Few = Vector<C, 64>;

constexpr int64_t kPaired = 2 * kFewLanes;  // elements: of AVX-512, and two times as many as of AVX2

// Copied one by one: gcc copies 64 bytes at once through memory.
template <class V = Few<float>>
struct Twos {
  V even, odd;
  NK_INLINE Twos() : even{}, odd{} {}
  NK_INLINE Twos(const V& a, const V& b) : even(a), odd(b) {}
  NK_INLINE Twos(const Twos& t) : even(t.even), odd(t.odd) {}
  NK_INLINE Twos& operator=(const Twos& t) {
    even = t.even;
    odd = t.odd;
    return *this;
  }
};
template <class V>
inline constexpr int64_t kWidth<Twos<V>> = 2 * kWidth<V>;
template <class V>
using Words = Lanes<uint32_t, kWidth<V>>;

template <class V>
NK_INLINE Twos<V> operator+(const Twos<V>& p, const Twos<V>& q) {
  return {p.even + q.even, p.odd + q.odd};
}
template <class V>
NK_INLINE Twos<V> operator*(const Twos<V>& p, const Twos<V>& q) {
  return {p.even * q.even, p.odd * q.odd};
}
template <class V>
NK_INLINE Twos<V> operator-(const Twos<V>& p, const Twos<V>& q) {
  return {p.even - q.even, p.odd - q.odd};
}
template <class V>
NK_INLINE Twos<V> operator+(const Twos<V>& p, float q) {
  return {p.even + q, p.odd + q};
}
template <class V>
NK_INLINE Twos<V> operator*(const Twos<V>& p, float q) {
  return {p.even * q, p.odd * q};
}
template <class V>
NK_INLINE Twos<V> operator-(const Twos<V>& p, float q) {
  return {p.even - q, p.odd - q};
}

template <class V>
NK_INLINE Twos<V> rounded(const Twos<V>& p) {
  return {rounded(p.even), rounded(p.odd)};
}

template <class V = Few<float>, class T>
NK_INLINE Twos<V> twos(const T* from) {
  if constexpr (std::is_same_v<T, bfloat16>) {
    Words<V> w;
    std::memcpy(&w, from, sizeof(w));
    return {bit_cast<V>(w << 16), bit_cast<V>(w & 0xffff0000u)};
  } else {
    return {take<V>(from), take<V>(from + kWidth<V>)};
  }
}
template <class V>
constexpr bool kIsTwos = false;
template <class V>
constexpr bool kIsTwos<Twos<V>> = true;
template <class V, class T>
  requires(kIsTwos<V>)
NK_INLINE V take(const T* from) {
  return twos<decltype(V::even)>(from);
}
template <class V>
NK_INLINE void put(const Twos<V>& v, float* to) {
  put(v.even, to);
  put(v.odd, to + kWidth<V>);
}

// Numbers of columns, a float each, as elements of T lie.
template <class T, class V = Few<float>>
NK_INLINE Twos<V> columns(const float* from) {
  const auto a = take<V>(from), b = take<V>(from + kWidth<V>);
  if constexpr (!std::is_same_v<T, bfloat16>) return {a, b};
  using Each = std::make_integer_sequence<int64_t, kWidth<V>>;
  return {picked<0, 2>(a, b, Each()), picked<1, 2>(a, b, Each())};
}

// The other way round
template <class V, int64_t... k>
NK_INLINE Twos<V> in_turns(const Twos<V>& v, std::integer_sequence<int64_t, k...>) {
  constexpr int64_t kHalf = kWidth<V> / 2;
  return {__builtin_shufflevector(v.even, v.odd, (k / 2 + k % 2 * kWidth<V>)...),
          __builtin_shufflevector(v.even, v.odd, (kHalf + k / 2 + k % 2 * kWidth<V>)...)};
}
template <class V>
NK_INLINE Twos<V> in_turns(const Twos<V>& v) {
  return in_turns(v, std::make_integer_sequence<int64_t, kWidth<V>>());
}

// The elements as bits.
template <class V>
NK_INLINE Words<V> bits_of(const Twos<V>& v, bfloat16) {
  return (rounded_bits<Words<V>>(v.even) >> 16) | (rounded_bits<Words<V>>(v.odd) & 0xffff0000u);
}
template <class V>
NK_INLINE Words<V> bits_of(const Twos<V>& v, float16) {
  const Halves<V> halves[] = {to_halves(v.even), to_halves(v.odd)};
  Words<V> w;
  std::memcpy(&w, halves, sizeof(w));
  return w;
}

// kStream: whole lines past the caches.
template <bool kStream, class V, class T>
NK_INLINE void put_line(const V& v, T* to) {
  if constexpr (kStream) {
    stream_vector<sizeof(V)>(&v, to);
  } else {
    std::memcpy(to, &v, sizeof(v));
  }
}
template <bool kStream, class V, class T>
NK_INLINE void put(const Twos<V>& v, T* to) {
  if constexpr (sizeof(T) == 2) {
    put_line<kStream>(bits_of(v, T{}), to);
  } else {
    put_line<kStream>(v.even, to);
    put_line<kStream>(v.odd, to + kWidth<V>);
  }
}

// f(position, which of the sums its first is) of all twos
template <class V = Few<float>, class F>
NK_INLINE void each_twos(int64_t N, const F& f) {
  constexpr int64_t kStep = kWidth<Twos<V>>;
  int64_t j = 0;
  for (; j + 2 * kStep <= N; j += 2 * kStep) {
    f(j, 0);
    f(j + kStep, 2);
  }
  if (j < N) f(j, 0);
}

// The elements that are new in the last twos of a plane of n, which end where it ends.
template <class V, class T>
struct FreshTwos {
  Fresh<V> even, odd;
  NK_INLINE explicit FreshTwos(int64_t n) {
    constexpr int64_t kStep = kWidth<Twos<V>>;
    V at, next;
    for (int64_t l = 0; l < kWidth<V>; l++) {
      at[l] = static_cast<float>(std::is_same_v<T, bfloat16> ? 2 * l : l);
      next[l] = static_cast<float>(std::is_same_v<T, bfloat16> ? 2 * l + 1 : kWidth<V> + l);
    }
    const float first = static_cast<float>(kStep - n % kStep);
    even = at >= first;
    odd = next >= first;
  }
  NK_INLINE Twos<V> of(const Twos<V>& v) const { return {even ? v.even : V{}, odd ? v.odd : V{}}; }
};

// Two of the four parts of a sum take one each.
template <class V>
NK_INLINE void add(const Twos<V>& v, Sum<V>& sum, int64_t k) {
  sum.part[k] += v.even;
  sum.part[k + 1] += v.odd;
}

template <class V>
NK_INLINE void add(const V& v, Sum<V>& sum, int64_t k) {
  sum.part[k] += v;
}

// The sums of x - about and of its square
template <class V = Few<float>, class T>
NK_INLINE Pair<float> sums_of_twos(const T* x, float about, int64_t N) {
  Sum<V> a, b;
  each_twos<V>(N, [&](int64_t j, int64_t k) NK_INLINED {
    const Twos<V> d = twos<V>(x + j) - about;
    add(d, a, k);
    add(d * d, b, k);
  });
  return {a.total(), b.total()};
}
#endif

}  // namespace normkernels
