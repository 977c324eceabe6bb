// Loops along rows, and over what is found of them, written to vectorise.
#include "cpu/filters/tiles.h"

#include <cmath>

#include "cpu/base/lanes.h"
#include "cpu/base/tiles.h"

namespace normkernels {
namespace {

// The sums of both members of f(i). Lanes are half a cache line, for loads of a whole one from memory take longer; the
// last ones overlap those before them, so that no loop is shorter than a vector.
template <class C, class F>
NK_INLINE Pair<C> row_sums(int64_t n, const F& f) {
  constexpr int64_t kHalf = 32 / sizeof(C);
  C a[2][kHalf] = {}, b[2][kHalf] = {};
  if (n < 2 * kHalf) {
    for (int64_t i = 0; i < n; i++) {
      const Pair<C> p = f(i);
      a[0][0] += p.a;
      b[0][0] += p.b;
    }
    return {a[0][0], b[0][0]};
  }
  const auto add = [&](int64_t from, int64_t counted) NK_INLINED {
    for (int64_t h = 0; h < 2; h++) {
#pragma omp simd
      for (int64_t l = 0; l < kHalf; l++) {
        const Pair<C> p = f(from + h * kHalf + l);
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
  return {add_lanes<kHalf / 2>(a[0]), add_lanes<kHalf / 2>(b[0])};
}

}  // namespace

template <class T>
NK_CLONES void row_moments(const T* x, bool centred, double eps, Found<compute_t<T>>& f, int64_t rows, int64_t n) {
  using C = compute_t<T>;
  const C share = C(1) / static_cast<C>(n);
  const auto check = [&](const T* row, int64_t r) NK_INLINED {
    f.squares[r] = f.a[r];
    if (squares_fit<T>(f.squares[r], n, eps)) return;
    const Moments moments = wide_moments(row, centred, n);
    f.mean[r] = static_cast<C>(moments.mean);
    f.c[r] = static_cast<C>(moments.mean - f.mean[r]);
    f.squares[r] = moments.m2;
    f.fit = false;
  };
  f.fit = true;
  for (int64_t r = 0; r < rows; r++, x += n) {
    if (!centred) {
      f.mean[r] = f.c[r] = 0;
      f.a[r] = row_sums<C>(n, [=](int64_t i) NK_INLINED { return Pair<C>{load(x[i]) * load(x[i]), C(0)}; }).a;
      check(x, r);
      continue;
    }
    const C mean = row_sums<C>(n, [=](int64_t i) NK_INLINED { return Pair<C>{load(x[i]), C(0)}; }).a * share;
    const Pair<C> rest = row_sums<C>(n, [=](int64_t i) NK_INLINED {
      const C d = load(x[i]) - mean;
      return Pair<C>{d, d * d};
    });
    const C left = rest.a * share;  // by rounding, in the mean
    f.mean[r] = mean + left;
    f.c[r] = (mean - f.mean[r]) + left;
    f.a[r] = rest.b - rest.a * left;
    check(x, r);
  }
}

template <class T, class D>
NK_CLONES void row_products(const D* dy, const T* x, bool centred, Found<compute_t<T>>& f, int64_t rows, int64_t n) {
  using C = compute_t<T>;
  for (int64_t r = 0; r < rows; r++, x += n, dy += n) {
    if (!centred) {
      f.b[r] = row_sums<C>(n, [=](int64_t i) NK_INLINED { return Pair<C>{load(dy[i]) * load(x[i]), C(0)}; }).a;
      continue;
    }
    const C mean = f.mean[r];
    const Pair<C> sums = row_sums<C>(n, [=](int64_t i) NK_INLINED {
      const C d = load(dy[i]);
      return Pair<C>{d * (load(x[i]) - mean), d};
    });
    f.b[r] = sums.a;
    f.c[r] = sums.b;
  }
}

template <class C>
NK_CLONES void scale_coefficients(bool centred, int64_t n, double eps, const C* gain, C* statistic, Found<C>& f,
                                  int64_t rows) {
  const auto find = [&](const auto* squares, auto count) NK_INLINED {
    using S = decltype(count);
    for (int64_t r = 0; r < rows; r++) {
      const S root = std::sqrt(centred ? squares[r] / count + static_cast<S>(eps) : squares[r]);
      const C inverse = static_cast<C>(centred || root > 0 ? S(1) / root : S(0));  // a row of zeros has no direction
      statistic[r] = centred ? inverse : static_cast<C>(root);
      f.a[r] = gain ? gain[r] * inverse : inverse;
      f.c[r] = -f.c[r] * f.a[r];
    }
  };
  f.fit ? find(f.a, static_cast<C>(n)) : find(f.squares, static_cast<double>(n));
}

template <class C>
NK_CLONES void blend_coefficients(bool centred, int64_t n, const C* gain, const C* statistic, C* along, Found<C>& f,
                                  int64_t rows) {
  const C share = centred ? C(1) / static_cast<C>(n) : C(1);
  for (int64_t r = 0; r < rows; r++) {
    const C inverse = centred ? statistic[r] : statistic[r] > 0 ? C(1) / statistic[r] : C(0);
    const C scale = gain ? gain[r] * inverse : inverse;
    f.rstd[r] = inverse;
    along[r] = f.b[r] * inverse + (centred ? f.shift[r] * f.c[r] : C(0));
    f.a[r] = centred && n == 1 ? C(0) : scale;  // one value is its own mean, exactly
    f.b[r] = -scale * along[r] * share;
    f.c[r] = centred ? f.b[r] * f.shift[r] - f.a[r] * share * f.c[r] : C(0);
  }
}

template <class T, class D>
NK_CLONES void scale_rows(const T* x, const Found<compute_t<T>>& f, D* y, int64_t rows, int64_t n) {
  for (int64_t r = 0; r < rows; r++, x += n, y += n) {
    const auto mean = f.mean[r], a = f.a[r], c = f.c[r];
    map(y, n, [=](int64_t i) NK_INLINED { return (load(x[i]) - mean) * a + c; });
  }
}

template <class T, class D>
NK_CLONES void blend_rows(const D* dy, const T* x, const Found<compute_t<T>>& f, T* dx, int64_t rows, int64_t n) {
  for (int64_t r = 0; r < rows; r++, dy += n, x += n, dx += n) {
    const auto mean = f.mean[r], rstd = f.rstd[r], a = f.a[r], b = f.b[r], c = f.c[r];
    map(dx, n, [=](int64_t i) NK_INLINED { return a * load(dy[i]) + (b * ((load(x[i]) - mean) * rstd) + c); });
  }
}

#define NK_MIXED(T, D)                                                                          \
  template void row_products(const D*, const T*, bool, Found<compute_t<T>>&, int64_t, int64_t); \
  template void scale_rows(const T*, const Found<compute_t<T>>&, D*, int64_t, int64_t);         \
  template void blend_rows(const D*, const T*, const Found<compute_t<T>>&, T*, int64_t, int64_t);
#define NK_ROWS(T)                                                                           \
  template void row_moments(const T*, bool, double, Found<compute_t<T>>&, int64_t, int64_t); \
  NK_MIXED(T, T)
#define NK_COEFFICIENTS(C)                                                                   \
  template void scale_coefficients(bool, int64_t, double, const C*, C*, Found<C>&, int64_t); \
  template void blend_coefficients(bool, int64_t, const C*, const C*, C*, Found<C>&, int64_t);
NK_ROWS(double)
NK_ROWS(float)
NK_ROWS(bfloat16)
NK_ROWS(float16)
NK_MIXED(float, bfloat16)
NK_MIXED(float, float16)
NK_COEFFICIENTS(double)
NK_COEFFICIENTS(float)

}  // namespace normkernels
