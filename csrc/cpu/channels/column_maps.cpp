// Loops that write rows of channels of a small image, column by column.
#include "cpu/base/lanes.h"
#include "cpu/channels/tiles.h"

namespace normkernels {
namespace {

// out = f(element, column) of a band of columns, whose coefficients f has
template <int64_t n, class F>
NK_INLINE void band(float* out, int64_t rows, int64_t stride, const F& f) {
  for (int64_t r = 0; r < rows; r++)
    for (int64_t i = 0; i < n; i++) out[r * stride + i] = f(r * stride + i, i);
}

}  // namespace

NK_CLONES void scale_columns(const float* x, const Scale<const float*>& k, float* y, int64_t rows, int64_t n) {
  for (int64_t c = 0; c < n; c += kBand) {
    float mean[kBand], scale[kBand], shift[kBand];
    for (int64_t i = 0; i < kBand; i++) mean[i] = k.mean[c + i], scale[i] = k.scale[c + i], shift[i] = k.shift[c + i];
    band<kBand>(y + c, rows, n, [&](int64_t at, int64_t i) NK_INLINED { return (x[c + at] - mean[i]) * scale[i] + shift[i]; });
  }
}

NK_CLONES void blend_columns(const float* du, const float* x, const Blend<const float*>& k, float* dx, int64_t rows,
                             int64_t n) {
  for (int64_t c = 0; c < n; c += kBand) {
    float mean[kBand], a[kBand], b[kBand], d[kBand];
    for (int64_t i = 0; i < kBand; i++) mean[i] = k.mean[c + i], a[i] = k.a[c + i], b[i] = k.b[c + i], d[i] = k.c[c + i];
    band<kBand>(dx + c, rows, n, [&](int64_t at, int64_t i) NK_INLINED {
      return a[i] * du[c + at] + (b[i] * (x[c + at] - mean[i]) + d[i]);
    });
  }
}

}  // namespace normkernels
