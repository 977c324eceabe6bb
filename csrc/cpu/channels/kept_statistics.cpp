// From sums to statistics, many at once.
#include "cpu/channels/kept_statistics.h"

namespace normkernels {

template <class C>
NK_CLONES bool move_about(const Pair<double>* sums, double count, C* about, int64_t n) {
  int64_t moved = 0;
#pragma omp simd reduction(+ : moved)
  for (int64_t i = 0; i < n; i++) {
    const double left = sums[i].a / count, off = sums[i].a * left;
    const bool far = !(off <= kFar<C> * (sums[i].b - off));
    about[i] += far ? static_cast<C>(left) : C(0);
    moved += far;
  }
  return moved > 0;
}

template <class C>
NK_CLONES bool keep_sums(const Pair<double>* sums, double count, const C* about, const Kept<C>& to, int64_t n) {
  const Pair<double> fitting = fitting_squares<C>(static_cast<int64_t>(count), to.eps);
  int64_t out = 0;
  to.with_put([&](const auto& put) NK_INLINED {
    int64_t beyond = 0;
#pragma omp simd reduction(+ : beyond)
    for (int64_t i = 0; i < n; i++) {
      const double left = sums[i].a / count, m2 = sums[i].b - sums[i].a * left;
      beyond += m2 >= fitting.a ? 0 : 1;
      beyond += m2 <= fitting.b ? 0 : 1;
      put(i, about[i] + left, m2 / count);
    }
    out = beyond;
  });
  return out == 0;
}

#define NK_STATISTICS(C)                                              \
  template bool move_about(const Pair<double>*, double, C*, int64_t); \
  template bool keep_sums(const Pair<double>*, double, const C*, const Kept<C>&, int64_t);
NK_STATISTICS(double)
NK_STATISTICS(float)

}  // namespace normkernels
