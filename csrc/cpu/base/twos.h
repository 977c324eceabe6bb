// Elements taken 32 at a time, with AVX-512. Of bfloat16 the even ones and the odd ones are a few numbers
// each, two to a word, and no lane has to move; of float16 the first and the last, as its conversions take them, and so
// of float.
#pragma once

#include <type_traits>

#include "cpu/base/few.h"

namespace normkernels {

#if defined(NK_TWOS)
template <class C>
using Few = Vector<C, 64>;
using Words = Few<uint32_t>;

constexpr int64_t kPaired = 2 * kFewLanes;

struct Twos {
  Few<float> even, odd;
};
NK_INLINE Twos operator+(const Twos& p, const Twos& q) { return {p.even + q.even, p.odd + q.odd}; }
NK_INLINE Twos operator*(const Twos& p, const Twos& q) { return {p.even * q.even, p.odd * q.odd}; }
NK_INLINE Twos operator-(const Twos& p, const Twos& q) { return {p.even - q.even, p.odd - q.odd}; }
NK_INLINE Twos operator+(const Twos& p, float q) { return {p.even + q, p.odd + q}; }
NK_INLINE Twos operator*(const Twos& p, float q) { return {p.even * q, p.odd * q}; }
NK_INLINE Twos operator-(const Twos& p, float q) { return {p.even - q, p.odd - q}; }

NK_INLINE Twos rounded(const Twos& p) { return {rounded(p.even), rounded(p.odd)}; }

NK_INLINE Twos twos(const bfloat16* from) {
  Words w;
  std::memcpy(&w, from, sizeof(w));
  return {bit_cast<Few<float>>(w << 16), bit_cast<Few<float>>(w & 0xffff0000u)};
}
NK_INLINE Twos twos(const float16* from) {
  using Bits [[gnu::vector_size(32)]] = short;
  constexpr int kCurrentRounding = 4;
  const auto widen = [](const float16* at) NK_INLINED {
    Bits bits;
    std::memcpy(&bits, at, sizeof(bits));
    return __builtin_ia32_vcvtph2ps512_mask(bits, Few<float>{}, -1, kCurrentRounding);
  };
  return {widen(from), widen(from + kFewLanes)};
}
NK_INLINE Twos twos(const float* from) { return {take<Few<float>>(from), take<Few<float>>(from + kFewLanes)}; }
template <>
inline constexpr int64_t kWidth<Twos> = kPaired;
template <class V, class T>
  requires(std::is_same_v<V, Twos>)
NK_INLINE V take(const T* from) {
  return twos(from);
}
NK_INLINE void put(const Twos& v, float* to) {
  put(v.even, to);
  put(v.odd, to + kFewLanes);
}

// Numbers of 32 columns, a float each, as elements of T lie.
template <class T>
NK_INLINE Twos columns(const float* from) {
  const auto a = take<Few<float>>(from), b = take<Few<float>>(from + kFewLanes);
  if constexpr (!std::is_same_v<T, bfloat16>) return {a, b};
  return {__builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30),
          __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31)};
}

// The 32 elements as bits.
NK_INLINE Words bits_of(const Twos& v, bfloat16) {
  return (rounded_bits<Words>(v.even) >> 16) | (rounded_bits<Words>(v.odd) & 0xffff0000u);
}
NK_INLINE Words bits_of(const Twos& v, float16) {
  using Bits [[gnu::vector_size(32)]] = short;
  constexpr int kNearestEven = 0;
  const Bits halves[] = {__builtin_ia32_vcvtps2ph512_mask(v.even, kNearestEven, Bits{}, -1),
                         __builtin_ia32_vcvtps2ph512_mask(v.odd, kNearestEven, Bits{}, -1)};
  Words w;
  std::memcpy(&w, halves, sizeof(w));
  return w;
}

// kStream: whole lines past the caches.
template <bool kStream, class V, class T>
NK_INLINE void put_line(const V& v, T* to) {
  if constexpr (kStream) {
    using Line [[gnu::vector_size(64)]] = long long;
    __builtin_ia32_movntdq512(reinterpret_cast<Line*>(to), bit_cast<Line>(v));
  } else {
    std::memcpy(to, &v, sizeof(v));
  }
}
template <bool kStream, class T>
NK_INLINE void put(const Twos& v, T* to) {
  if constexpr (sizeof(T) == 2) {
    put_line<kStream>(bits_of(v, T{}), to);
  } else {
    put_line<kStream>(v.even, to);
    put_line<kStream>(v.odd, to + kFewLanes);
  }
}

// f(position, which of the sums its first is) of every 32 elements
template <class F>
NK_INLINE void each_twos(int64_t N, const F& f) {
  int64_t j = 0;
  for (; j + 2 * kPaired <= N; j += 2 * kPaired) {
    f(j, 0);
    f(j + kPaired, 2);
  }
  if (j < N) f(j, 0);
}

// Two of the four parts of a sum take one each.
NK_INLINE void add(const Twos& v, Sum<Few<float>>& sum, int64_t k) {
  sum.part[k] += v.even;
  sum.part[k + 1] += v.odd;
}

NK_INLINE void add(const Few<float>& v, Sum<Few<float>>& sum, int64_t k) { sum.part[k] += v; }

// The sums of x - about and of its square
template <class T>
NK_INLINE Pair<float> sums_of_twos(const T* x, float about, int64_t N) {
  Sum<Few<float>> a, b;
  each_twos(N, [&](int64_t j, int64_t k) NK_INLINED {
    const Twos d = twos(x + j) - about;
    add(d, a, k);
    add(d * d, b, k);
  });
  return {a.total(), b.total()};
}
#endif

}  // namespace normkernels
