// Loops along rows, and over what is found of them, written to vectorise.
#include "cpu/filters/tiles.h"

#include <cmath>

#include "cpu/base/tiles.h"
#include "cpu/channels/gates.h"
#include "cpu/filters/sums.h"

namespace normkernels {
namespace {

template <class T>
NK_CLONES void singly_moments(const T* x, bool centred, Found<compute_t<T>>& f, int64_t rows, int64_t n) {
  find_moments<Singly>(x, centred, f, rows, n);
}
template <class T, class D>
NK_CLONES void singly_products(const D* dy, const T* x, bool centred, Found<compute_t<T>>& f, int64_t rows, int64_t n) {
  find_products<Singly>(dy, x, centred, f, rows, n);
}

}  // namespace

template <class T>
void row_moments(const T* x, bool centred, double eps, Found<compute_t<T>>& f, int64_t rows, int64_t n) {
  if constexpr (kPairs<T, T>) {
    paired_rows<T, T>(n) ? paired_moments(x, centred, f, rows, n) : singly_moments(x, centred, f, rows, n);
  } else {
    singly_moments(x, centred, f, rows, n);
  }
  f.fit = true;
  for (int64_t r = 0; r < rows; r++, x += n) {
    f.squares[r] = f.a[r];
    if (squares_fit<T>(f.squares[r], n, eps)) continue;
    const Moments moments = wide_moments(x, centred, n);
    f.mean[r] = static_cast<compute_t<T>>(moments.mean);
    f.c[r] = static_cast<compute_t<T>>(moments.mean - f.mean[r]);
    f.squares[r] = moments.m2;
    f.fit = false;
  }
}

template <class T, class D>
void row_products(const D* dy, const T* x, bool centred, Found<compute_t<T>>& f, int64_t rows, int64_t n) {
  if constexpr (kPairs<T, D>) {
    if (paired_rows<T, D>(n)) return paired_products(dy, x, centred, f, rows, n);
  }
  singly_products(dy, x, centred, f, rows, n);
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
    if (folds(f.rstd[r])) {
      const auto value = blended(folded(f, r));
      map(dx, n, [=](int64_t i) NK_INLINED { return value(i, load(dy[i]), load(x[i])); });
      continue;
    }
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
