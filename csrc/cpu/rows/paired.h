// Rows of bfloat16 taken two elements to a word, with AVX-512: of 32 elements the even ones and the odd ones are a few
// numbers each, and no lane has to move. What belongs to columns is laid out alike.
#pragma once

#include "cpu/base/few.h"
#include "cpu/base/work.h"
#include "cpu/rows/narrow.h"

namespace normkernels {

#if defined(NK_AVX512) && defined(NK_SHUFFLES)
struct Twos {
  Few<float> even, odd;
};
NK_INLINE Twos operator+(const Twos& p, const Twos& q) { return {p.even + q.even, p.odd + q.odd}; }
NK_INLINE Twos operator*(const Twos& p, const Twos& q) { return {p.even * q.even, p.odd * q.odd}; }
NK_INLINE Twos operator-(const Twos& p, const Twos& q) { return {p.even - q.even, p.odd - q.odd}; }
NK_INLINE Twos operator+(const Twos& p, float q) { return {p.even + q, p.odd + q}; }
NK_INLINE Twos operator*(const Twos& p, float q) { return {p.even * q, p.odd * q}; }
NK_INLINE Twos operator-(const Twos& p, float q) { return {p.even - q, p.odd - q}; }

NK_INLINE Twos twos(const bfloat16* from) {
  Words w;
  std::memcpy(&w, from, sizeof(w));
  return {bit_cast<Few<float>>(w << 16), bit_cast<Few<float>>(w & 0xffff0000u)};
}
NK_INLINE Twos twos(const float* from) { return {few(from), few(from + kFewLanes)}; }
NK_INLINE void put(const Twos& v, float* to) {
  put(v.even, to);
  put(v.odd, to + kFewLanes);
}

// kStream: whole lines past the caches.
template <bool kStream>
NK_INLINE void put(const Twos& v, bfloat16* to) {
  const Words w = (rounded_bits<Words>(v.even) >> 16) | (rounded_bits<Words>(v.odd) & 0xffff0000u);
  if constexpr (kStream) {
    using Line [[gnu::vector_size(64)]] = long long;
    __builtin_ia32_movntdq512(reinterpret_cast<Line*>(to), bit_cast<Line>(w));
  } else {
    std::memcpy(to, &w, sizeof(w));
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
NK_INLINE void add(const Twos& v, Sum<float>& sum, int64_t k) {
  sum.part[k] += v.even;
  sum.part[k + 1] += v.odd;
}

// xhat weight + bias, all laid out
NK_INLINE Twos normalised_twos(const bfloat16* x, const KnownRow<float>& row, const float* w, const float* b,
                               int64_t j) {
  Twos v = (twos(x + j) - row.mean) * row.rstd + row.shift;
  if (w) v = v * twos(w + j);
  if (b) v = v + twos(b + j);
  return v;
}

// A line of columns, or null, laid out: of every 32 the even ones first. Back again it is the other way round.
class LaidOut {
 public:
  LaidOut(const float* line, int64_t N) : numbers_(line ? N : 0) {
    if (line) lay_out(line, numbers_.data(), N);
  }
  const float* data() const { return numbers_.empty() ? nullptr : numbers_.data(); }

  NK_AVX512 static void lay_out(const float* from, float* to, int64_t N) {
    for (int64_t j = 0; j < N; j += kPaired) {
      const Few<float> a = few(from + j), b = few(from + j + kFewLanes);
      put({__builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30),
           __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31)},
          to + j);
    }
  }
  NK_AVX512 static void put_back(float* line, int64_t N) {
    for (int64_t j = 0; j < N; j += kPaired) {
      const Twos v = twos(line + j);
      put(__builtin_shufflevector(v.even, v.odd, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23), line + j);
      put(__builtin_shufflevector(v.even, v.odd, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31),
          line + j + kFewLanes);
    }
  }

 private:
  Scratch<float> numbers_;
};
#endif

}  // namespace normkernels
