// Loops that write rows of channels of a small image, a band of columns after the other.
#include "cpu/channels/gates.h"

namespace normkernels {
namespace {

// out = f(element, column of the band), of rows that lie stride apart
template <class F>
NK_INLINE void map_band(float* out, int64_t rows, int64_t stride, const F& f) {
  for (int64_t row = 0; row < rows; row++) {
#pragma omp simd
    for (int64_t i = 0; i < kBand; i++) out[row * stride + i] = f(row * stride + i, i);
  }
}

NK_INLINE void take_band(const float* from, float* to) {
  for (int64_t i = 0; i < kBand; i++) to[i] = from[i];
}

}  // namespace

NK_CLONES void scale_columns(const float* x, const Scale<const float*>& k, float* y, int64_t rows, int64_t n) {
  for (int64_t c = 0; c < n; c += kBand) {
    float mean[kBand], scale[kBand], shift[kBand];
    take_band(k.mean + c, mean);
    take_band(k.scale + c, scale);
    take_band(k.shift + c, shift);
    map_band(y + c, rows, n,
             [&](int64_t at, int64_t i) NK_INLINED { return (x[c + at] - mean[i]) * scale[i] + shift[i]; });
  }
}

NK_CLONES void blend_columns(const float* du, const float* x, const Blend<const float*>& k, float* dx, int64_t rows,
                             int64_t n) {
  for (int64_t c = 0; c < n; c += kBand) {
    float mean[kBand], of_du[kBand], of_x[kBand], rest[kBand];
    take_band(k.mean + c, mean);
    take_band(k.a + c, of_du);
    take_band(k.b + c, of_x);
    take_band(k.c + c, rest);
    map_band(dx + c, rows, n, [&](int64_t at, int64_t i) NK_INLINED {
      return of_du[i] * du[c + at] + (of_x[i] * (x[c + at] - mean[i]) + rest[i]);
    });
  }
}

}  // namespace normkernels
