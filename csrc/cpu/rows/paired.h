// Rows of 16 bits taken two vectors at a time: what belongs to columns is laid out as bfloat16 is.
#pragma once

#include "cpu/base/activated.h"
#include "cpu/base/twos.h"
#include "cpu/base/work.h"
#include "cpu/rows/narrow.h"

namespace normkernels {

#if defined(NK_TWOS)
// xhat weight + bias, all laid out
template <class V, class T>
NK_INLINE Twos<V> normalised_twos(const T* x, const KnownRow<float>& row, const float* w, const float* b, int64_t j) {
  Twos<V> v = (twos<V>(x + j) - row.mean) * row.rstd + row.shift;
  if (w) v = rounded(v * twos<V>(w + j));
  if (b) v = v + twos<V>(b + j);
  return v;
}

template <Activation f, class V>
NK_INLINE Twos<V> activated(const Twos<V>& u) {
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

// Of columns, two vectors at a time: laid out as elements of T are, and back again.
template <class V, class T>
NK_INLINE void lay_out(const float* from, float* to, int64_t N) {
  for (int64_t j = 0; j < N; j += kWidth<Twos<V>>) put(columns<T, V>(from + j), to + j);
}
template <class V>
NK_INLINE void put_back(float* line, int64_t N) {
  for (int64_t j = 0; j < N; j += kWidth<Twos<V>>) put(in_turns(twos<V>(line + j)), line + j);
}

// A line of columns, or null, laid out as elements of T: of each two vectors of bfloat16 the even ones first. Back
// again it is the other way round.
template <class T>
class LaidOut {
 public:
  static constexpr bool kMoves = std::is_same_v<T, bfloat16>;

  LaidOut(const float* line, int64_t N) : line_(line), numbers_(line && kMoves ? N : 0) {
    float* const to = numbers_.data();
    if (!numbers_.empty()) with_twos([=](auto bytes) NK_INLINED { lay_out<Vector<float, bytes()>, T>(line, to, N); });
  }
  const float* data() const { return numbers_.empty() ? line_ : numbers_.data(); }

  static void put_back(float* line, int64_t N) {
    if (kMoves) with_twos([=](auto bytes) NK_INLINED { normkernels::put_back<Vector<float, bytes()>>(line, N); });
  }

 private:
  const float* line_;
  Scratch<float> numbers_;
};
#endif

}  // namespace normkernels
