// Sums along rows, an element at a time or another way.
#pragma once

#include "cpu/base/lanes.h"
#include "cpu/filters/tiles.h"

namespace normkernels {

// The sums of both members of f(elements). Lanes are half a cache line, for loads of a whole one from memory take
// longer; the last ones overlap those before them, so that no loop is shorter than a vector.
struct Singly {
  template <class F, class... T>
  NK_INLINE static auto sums(int64_t n, const F& f, const T*... from) {
    using C = decltype(f(load(*from)...).a);
    constexpr int64_t kHalf = 32 / sizeof(C);
    C a[2][kHalf] = {}, b[2][kHalf] = {};
    if (n < 2 * kHalf) {
      for (int64_t i = 0; i < n; i++) {
        const Pair<C> p = f(load(from[i])...);
        a[0][0] += p.a;
        b[0][0] += p.b;
      }
      return Pair<C>{a[0][0], b[0][0]};
    }
    const auto add = [&](int64_t at, int64_t counted) NK_INLINED {
      for (int64_t h = 0; h < 2; h++) {
#pragma omp simd
        for (int64_t l = 0; l < kHalf; l++) {
          const Pair<C> p = f(load(from[at + h * kHalf + l])...);
          a[h][l] += h * kHalf + l < counted ? C(0) : p.a;
          b[h][l] += h * kHalf + l < counted ? C(0) : p.b;
        }
      }
    };
    int64_t i = 0;
    for (; i + 2 * kHalf <= n; i += 2 * kHalf) add(i, 0);
    add(n - 2 * kHalf, i + 2 * kHalf - n);
    for (int64_t l = 0; l < kHalf; l++) {
      a[0][l] += a[1][l];
      b[0][l] += b[1][l];
    }
    return Pair<C>{add_lanes<kHalf / 2>(a[0]), add_lanes<kHalf / 2>(b[0])};
  }
};

template <class Way, class T>
NK_INLINE void find_moments(const T* x, bool centred, Found<compute_t<T>>& f, int64_t rows, int64_t n) {
  using C = compute_t<T>;
  const C share = C(1) / static_cast<C>(n);
  for (int64_t r = 0; r < rows; r++, x += n) {
    if (!centred) {
      f.mean[r] = f.c[r] = 0;
      f.a[r] = Way::sums(n, []<class V>(const V& v) NK_INLINED { return Pair<V>{v * v, V{}}; }, x).a;
      continue;
    }
    const C mean = Way::sums(n, []<class V>(const V& v) NK_INLINED { return Pair<V>{v, V{}}; }, x).a * share;
    const auto about = [=]<class V>(const V& v) NK_INLINED {
      const V d = v - mean;
      return Pair<V>{d, d * d};
    };
    const Pair<C> rest = Way::sums(n, about, x);
    const C left = rest.a * share;  // by rounding, in the mean
    f.mean[r] = mean + left;
    f.c[r] = (mean - f.mean[r]) + left;
    f.a[r] = rest.b - rest.a * left;
  }
}

template <class Way, class T, class D>
NK_INLINE void find_products(const D* dy, const T* x, bool centred, Found<compute_t<T>>& f, int64_t rows, int64_t n) {
  using C = compute_t<T>;
  for (int64_t r = 0; r < rows; r++, x += n, dy += n) {
    if (!centred) {
      f.b[r] = Way::sums(n, []<class V>(const V& d, const V& v) NK_INLINED { return Pair<V>{d * v, V{}}; }, dy, x).a;
      continue;
    }
    const C mean = f.mean[r];
    const auto product = [=]<class V>(const V& d, const V& v) NK_INLINED { return Pair<V>{d * (v - mean), d}; };
    const Pair<C> sums = Way::sums(n, product, dy, x);
    f.b[r] = sums.a;
    f.c[r] = sums.b;
  }
}

}  // namespace normkernels
