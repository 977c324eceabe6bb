// Rows of 16 bits taken 32 elements at a time: what belongs to columns is laid out as bfloat16 is.
#pragma once

#include "cpu/base/activated.h"
#include "cpu/base/twos.h"
#include "cpu/base/work.h"
#include "cpu/rows/narrow.h"

namespace normkernels {

#if defined(NK_TWOS)
// xhat weight + bias, all laid out
template <class T>
NK_INLINE Twos<> normalised_twos(const T* x, const KnownRow<float>& row, const float* w, const float* b, int64_t j) {
  Twos<> v = (twos(x + j) - row.mean) * row.rstd + row.shift;
  if (w) v = rounded(v * twos(w + j));
  if (b) v = v + twos(b + j);
  return v;
}

template <Activation f>
NK_INLINE Twos<> activated(const Twos<>& u) {
  return {activated<f>(u.even), activated<f>(u.odd)};
}

// The sums that f(first, n) finds of each part of a row
template <class F>
NK_INLINE Pair<float> sums_of_parts(int64_t N, const F& f) {
  Pair<float> sums = f(0, std::min(N, kPairedRow));
  for (int64_t first = kPairedRow; first < N; first += kPairedRow) {
    const Pair<float> part = f(first, std::min(N - first, kPairedRow));
    sums.a += part.a;
    sums.b += part.b;
  }
  return sums;
}

// A line of columns, or null, laid out as elements of T: of every 32 of bfloat16 the even ones first. Back again it is
// the other way round.
template <class T>
class LaidOut {
 public:
  static constexpr bool kMoves = std::is_same_v<T, bfloat16>;

  LaidOut(const float* line, int64_t N) : line_(line), numbers_(line && kMoves ? N : 0) {
    if (!numbers_.empty()) lay_out(line, numbers_.data(), N);
  }
  const float* data() const { return numbers_.empty() ? line_ : numbers_.data(); }

  NK_AVX512 static void lay_out(const float* from, float* to, int64_t N) {
    for (int64_t j = 0; j < N; j += kPaired) put(columns<T>(from + j), to + j);
  }
  NK_AVX512 static void put_back(float* line, int64_t N) {
    if (!kMoves) return;
    for (int64_t j = 0; j < N; j += kPaired) {
      const Twos<> v = twos(line + j);
      put(__builtin_shufflevector(v.even, v.odd, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23), line + j);
      put(__builtin_shufflevector(v.even, v.odd, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31),
          line + j + kFewLanes);
    }
  }

 private:
  const float* line_;
  Scratch<float> numbers_;
};
#endif

}  // namespace normkernels
