// Loops over deviations; those of p = 1 vectorise, a power is one call for each element.
#include "cpu/base/glibc.h"
#include "cpu/base/lanes.h"
#include "cpu/channels/tiles.h"

namespace normkernels {
namespace {

template <class C>
NK_INLINE C sign(C v) {
  return v > 0 ? C(1) : (v < 0 ? C(-1) : v);
}

// |v|^p and |v|^(p - 1) sign(v)
template <class C>
Pair<C> powers(C v, double p) {
  const C slope = static_cast<C>(std::pow(std::fabs(v), static_cast<C>(p - 1)));
  return {slope * std::fabs(v), slope * sign(v)};
}

template <class C>
NK_INLINE Pair<C> first_powers(C v) {
  return {v < 0 ? -v : v, sign(v)};
}

}  // namespace

template <class T>
NK_CLONES Pair<compute_t<T>> deviation_sums(const T* x, compute_t<T> mean, double p, int64_t n) {
  using C = compute_t<T>;
  if (p == 1) return sum_pairs<C>(n, [=](int64_t i) NK_INLINED { return first_powers(load(x[i]) - mean); });
  return sum_pairs<C>(n, [=](int64_t i) NK_INLINED { return powers(load(x[i]) - mean, p); });
}

template <class T>
NK_CLONES void add_deviations(const T* x, const compute_t<T>* mean, double p, compute_t<T>* a, compute_t<T>* b,
                              int64_t n) {
  const auto add = [=](const auto& of) NK_INLINED {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
      const auto v = of(load(x[i]) - mean[i]);
      a[i] += v.a;
      b[i] += v.b;
    }
  };
  if (p == 1) return add([](compute_t<T> v) NK_INLINED { return first_powers(v); });
  add([=](compute_t<T> v) NK_INLINED { return powers(v, p); });
}

template <class T, class K, class D>
NK_CLONES void blend_deviations(const D* du, const T* x, const Blend<K>& blend, double p, T* dx, int64_t n) {
  const auto write = [=, k = blend](const auto& slope) NK_INLINED {
    map(dx, n,
        [=](int64_t i) NK_INLINED { return k.a[i] * load(du[i]) + (k.b[i] * slope(load(x[i]) - k.mean[i]) + k.c[i]); });
  };
  if (p == 1) return write([](compute_t<T> v) NK_INLINED { return sign(v); });
  write([=](compute_t<T> v) NK_INLINED { return powers(v, p).b; });
}

#define NK_BLENDS(T, D)                                                                                      \
  template void blend_deviations(const D*, const T*, const Blend<Same<compute_t<T>>>&, double, T*, int64_t); \
  template void blend_deviations(const D*, const T*, const Blend<const compute_t<T>*>&, double, T*, int64_t);
#define NK_DEVIATIONS(T)                                                                                      \
  template Pair<compute_t<T>> deviation_sums(const T*, compute_t<T>, double, int64_t);                        \
  template void add_deviations(const T*, const compute_t<T>*, double, compute_t<T>*, compute_t<T>*, int64_t); \
  NK_BLENDS(T, compute_t<T>)
NK_DEVIATIONS(double)
NK_DEVIATIONS(float)
NK_DEVIATIONS(bfloat16)
NK_DEVIATIONS(float16)
NK_BLENDS(bfloat16, bfloat16)
NK_BLENDS(float16, float16)

}  // namespace normkernels
