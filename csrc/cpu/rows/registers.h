// Short rows backward, with the sums for weight and bias in registers: a row after the other, which memory answers
// best, and no sum is read and written again for each.
#pragma once

#include "cpu/base/registers.h"
#include "cpu/rows/backward.h"

namespace normkernels {

#if defined(NK_TWOS)
template <class V, int64_t kParts, class T>
NK_AVX512 void backward_of_parts(const RowsBackward<T>& a, int64_t block, int64_t begin, int64_t end,
                                 const Parts<V, kParts>& row) {
  const int64_t ahead = kTile / a.N;
  const float *w = a.affine.weight, count = static_cast<float>(a.N);
  V to_w[kParts] = {}, to_b[kParts] = {};
  const auto each_sum = [&](const auto& f) NK_INLINED {
    for (int64_t k = kParts - 1; k >= 0; k--) {  // the first ones last: where they overlap the last, they are right
      const int64_t at = block * a.N + row.column(k);
      if (a.dweight) f(to_w[k], a.dweight + at);
      if (a.dbias) f(to_b[k], a.dbias + at);
    }
  };
  each_sum([](V& sum, const float* table) NK_INLINED { sum = take<V>(table); });
  for (int64_t m = begin; m < end; m++) {
    const int64_t later = std::min(m + ahead, a.M - 1);
    const T *x = a.x + m * a.x_stride, *dy = a.dy + m * a.dy_stride;
    const T* const dsummed = a.dsummed ? a.dsummed + m * a.dsummed_stride : nullptr;
    const KnownRow<float> known = a.row(m);
    V d[kParts], h[kParts], of_g = {}, of_g_xhat = {};
#pragma GCC unroll 8
    for (int64_t k = 0; k < kParts; k++) {
      const int64_t j = row.column(k);
      d[k] = take<V>(dy + j);
      h[k] = (take<V>(x + j) - known.mean) * known.rstd + known.shift;
      const V g = w ? d[k] * take<V>(w + j) : d[k];
      of_g = of_g + row.counted(k, g);
      of_g_xhat = of_g_xhat + row.counted(k, g * h[k]);
      to_w[k] = to_w[k] + row.counted(k, d[k] * h[k]);
      to_b[k] = to_b[k] + row.counted(k, d[k]);
    }
    const float mean = a.mean ? total(of_g) / count : 0.f, along = total(of_g_xhat) / count;
#pragma GCC unroll 8
    for (int64_t k = 0; k < kParts; k++) {
      const int64_t j = row.column(k);
      __builtin_prefetch(a.x + later * a.x_stride + j);
      __builtin_prefetch(a.dy + later * a.dy_stride + j);
      if (dsummed) __builtin_prefetch(a.dsummed + later * a.dsummed_stride + j);
      V g = ((w ? d[k] * take<V>(w + j) : d[k]) - mean - h[k] * along) * known.rstd;
      if (dsummed) g = g + take<V>(dsummed + j);
      keep(g, a.dx + m * a.N + j);
    }
  }
  each_sum([](const V& sum, float* table) NK_INLINED { keep(sum, table); });
}

template <class V, class T>
void register_backward(const RowsBackward<T>& a, int64_t block, int64_t begin, int64_t end) {
  with_parts<V>(a.N, [&](const auto& row) { backward_of_parts(a, block, begin, end, row); });
}
#endif

}  // namespace normkernels
