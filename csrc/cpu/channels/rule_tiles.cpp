// Loops over statistics.
#include "cpu/channels/rule_tiles.h"

#include <cmath>

namespace normkernels {

template <class C>
NK_CLONES void correct_tile(const C* mean, const C* rstd, const Correction<C>& correction, int64_t first, int64_t n) {
  const Correction<C> k = correction;
  const C least = C(1) / k.r_max;
#pragma omp simd
  for (int64_t i = first; i < first + n; i++) {
    const C r = C(1) / (rstd[i] * k.running_std[i]), d = (mean[i] - k.running_mean[i]) / k.running_std[i];
    k.r[i] = r < least ? least : (r > k.r_max ? k.r_max : r);
    k.d[i] = d < -k.d_max ? -k.d_max : (d > k.d_max ? k.d_max : d);
  }
  corrected_tile(k, first, n);
}

template <class C>
NK_CLONES void corrected_tile(const Correction<C>& correction, int64_t first, int64_t n) {
  const Correction<C> k = correction;
  for (int64_t i = first; i < first + n; i++) {
    const C w = k.weight ? k.weight[i] : C(1), b = k.bias ? k.bias[i] : C(0);
    k.scale[i] = w * k.r[i];
    k.shift[i] = w * k.d[i] + b;
  }
}

template <class C>
NK_CLONES void use_tile(const Memory<C>& memory, int64_t first, const C* arrived, C* used, int64_t n) {
  const Memory<C> m = memory;
  const C count = m.counts[0] + 1;
  const bool there = m.counts[1] > 0;
#pragma omp simd
  for (int64_t i = 0; i < n; i++) {
    const C recent = m.short_term[first + i] + (arrived[i] - m.short_term[first + i]) / count;
    m.new_short_term[first + i] = recent;
    used[i] = m.of_long * (there ? m.long_term[first + i] : recent) + m.of_short * recent + m.of_current * arrived[i];
  }
}

#define NK_RULES(C)                                                                       \
  template void correct_tile(const C*, const C*, const Correction<C>&, int64_t, int64_t); \
  template void corrected_tile(const Correction<C>&, int64_t, int64_t);                   \
  template void use_tile(const Memory<C>&, int64_t, const C*, C*, int64_t);
NK_RULES(double)
NK_RULES(float)

}  // namespace normkernels
