// Rows of so few values that the sums for weight and bias stay in registers, backward: a row after the other, which
// memory answers best, and no sum is read and written again for each.
#pragma once

#include "cpu/base/twos.h"
#include "cpu/rows/backward.h"

namespace normkernels {

#if defined(NK_TWOS)
constexpr int64_t kRegisters = 8;  // of a row's values, as many of its gradients, and twice as many of sums

inline bool in_registers(int64_t N, bool plain) {
  return kAvx512 && plain && N >= kFewLanes && N <= kRegisters * kFewLanes;
}

// V: what is taken at once, a few numbers or two times as many.
template <class V>
constexpr int64_t kWidth = sizeof(V) / sizeof(float);
template <class V, class T>
NK_INLINE V take(const T* from) {
  if constexpr (std::is_same_v<V, Twos>)
    return twos(from);
  else
    return few(from);
}
template <class T>
NK_INLINE void keep(const Few<float>& v, T* to) {
  put(v, to);
}
template <class T>
NK_INLINE void keep(const Twos& v, T* to) {
  put<false>(v, to);
}
NK_INLINE float total(const Few<float>& v) { return add_up<float>(v); }
NK_INLINE float total(const Twos& v) { return add_up<float>(v.even + v.odd); }

// kParts: of a row's values, V each; the last one overlaps the one before, and what came before does not count.
template <class V, int64_t kParts, class T>
NK_AVX512 void backward_of_parts(const RowsBackward<T>& a, int64_t block) {
  const int64_t N = a.N, end = a.first_row(block + 1), ahead = kTile / N;
  const auto last = fresh<float>(N);
  const bool rest = N % kWidth<V>;
  const float *w = a.affine.weight, count = static_cast<float>(N);
  const auto column = [=](int64_t k) NK_INLINED { return k + 1 < kParts ? k * kWidth<V> : N - kWidth<V>; };
  const auto counted = [=](int64_t k, const V& v) NK_INLINED {
    if constexpr (std::is_same_v<V, Twos>)
      return v;
    else
      return k + 1 == kParts && rest ? (last ? v : V{}) : v;
  };
  V to_w[kParts] = {}, to_b[kParts] = {};
  for (int64_t m = a.first_row(block); m < end; m++) {
    const int64_t later = std::min(m + ahead, a.M - 1);
    const T *x = a.x + m * a.x_stride, *dy = a.dy + m * a.dy_stride;
    const T* const dsummed = a.dsummed ? a.dsummed + m * a.dsummed_stride : nullptr;
    const KnownRow<float> known = a.row(m);
    V d[kParts], h[kParts], of_g = {}, of_g_xhat = {};
#pragma GCC unroll 8
    for (int64_t k = 0; k < kParts; k++) {
      const int64_t j = column(k);
      d[k] = take<V>(dy + j);
      h[k] = (take<V>(x + j) - known.mean) * known.rstd + known.shift;
      const V g = w ? d[k] * take<V>(w + j) : d[k];
      of_g = of_g + counted(k, g);
      of_g_xhat = of_g_xhat + counted(k, g * h[k]);
      to_w[k] = to_w[k] + counted(k, d[k] * h[k]);
      to_b[k] = to_b[k] + counted(k, d[k]);
    }
    const float mean = a.mean ? total(of_g) / count : 0.f, along = total(of_g_xhat) / count;
#pragma GCC unroll 8
    for (int64_t k = 0; k < kParts; k++) {
      const int64_t j = column(k);
      __builtin_prefetch(a.x + later * a.x_stride + j);
      __builtin_prefetch(a.dy + later * a.dy_stride + j);
      if (dsummed) __builtin_prefetch(a.dsummed + later * a.dsummed_stride + j);
      V g = ((w ? d[k] * take<V>(w + j) : d[k]) - mean - h[k] * along) * known.rstd;
      if (dsummed) g = g + take<V>(dsummed + j);
      keep(g, a.dx + m * N + j);
    }
  }
  const auto add = [&](float* table, const V* sums) NK_INLINED {
    for (int64_t k = 0; table && k < kParts; k++) {
      float* const to = table + block * N + column(k);
      keep(take<V>(to) + sums[k], to);
    }
  };
  add(a.dweight, to_w);
  add(a.dbias, to_b);
}

template <class V, int64_t kParts = kRegisters * kFewLanes / kWidth<V>, class T>
void register_backward(const RowsBackward<T>& a, int64_t block) {
  if constexpr (kParts > 1)
    if (a.N <= (kParts - 1) * kWidth<V>) return register_backward<V, kParts - 1>(a, block);
  backward_of_parts<V, kParts>(a, block);
}
#endif

}  // namespace normkernels
