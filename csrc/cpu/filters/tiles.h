// Mathematics on rows that each have coefficients of their own: some short ones, or a tile of a long one. x is (rows,
// n) in T; y and dy are in D, the same or 16 bits beside float.
#pragma once

#include <type_traits>

#include "cpu/base/twos.h"
#include "cpu/channels/tiles.h"

namespace normkernels {

constexpr int64_t kFilters = 64;

// What is found of some rows: y = a (x - mean) + c, dx = a dy + b ((x - mean) rstd) + c.
template <class C>
struct Found {
  alignas(64) C mean[kFilters], a[kFilters], b[kFilters], c[kFilters];
  alignas(64) C rstd[kFilters], shift[kFilters];  // backward: xhat = (x - mean) rstd + shift
  double squares[kFilters];                       // forward: the sum of (x - mean)^2
  bool fit;                                       // forward: whether these are in a too
};

// Whether b rstd can be one coefficient: rstd and its square fit. Then it is, however a row is written, for its bits.
template <class C>
NK_INLINE bool folds(C rstd) {
  return rstd > C(1e-15) && rstd < C(1e15);
}
template <class C>
NK_INLINE Blend<Same<C>> folded(const Found<C>& f, int64_t r) {
  return {{f.mean[r]}, {f.a[r]}, {f.b[r] * f.rstd[r]}, {f.c[r]}};
}

// mean, what rounding left of it in c, and the sum of (x - mean)^2; eps tells whether squares too small for C matter
template <class T>
void row_moments(const T* x, bool centred, double eps, Found<compute_t<T>>& f, int64_t rows, int64_t n);
// In b the sum of dy (x - mean) and, if centred, in c that of dy
template <class T, class D>
void row_products(const D* dy, const T* x, bool centred, Found<compute_t<T>>& f, int64_t rows, int64_t n);

// Puts the coefficients in place of these sums; statistic: |x| or rstd, along: the gradient of gain, gain may be null.
template <class C>
void scale_coefficients(bool centred, int64_t n, double eps, const C* gain, C* statistic, Found<C>& f, int64_t rows);
template <class C>
void blend_coefficients(bool centred, int64_t n, const C* gain, const C* statistic, C* along, Found<C>& f,
                        int64_t rows);

// y may be x.
template <class T, class D>
void scale_rows(const T* x, const Found<compute_t<T>>& f, D* y, int64_t rows, int64_t n);
template <class T, class D>
void blend_rows(const D* dy, const T* x, const Found<compute_t<T>>& f, T* dx, int64_t rows, int64_t n);

// Whether rows can be taken two vectors at a time, and whether these are.
template <class T, class D>
constexpr bool kPairs = std::is_same_v<T, D> && sizeof(T) <= 4;
template <class T, class D>
bool paired_rows(int64_t n) {
#if defined(NK_TWOS)
  return kPairs<T, D> && kTwos && n % kPaired == 0;
#else
  return false;
#endif
}

// As row_moments and the others; stream: whole lines past the caches.
template <class T>
void paired_moments(const T* x, bool centred, Found<float>& f, int64_t rows, int64_t n);
template <class T>
void paired_products(const T* dy, const T* x, bool centred, Found<float>& f, int64_t rows, int64_t n);
template <class T>
void paired_scale(const T* x, const Found<float>& f, T* y, int64_t rows, int64_t n, bool stream);
template <class T>
void paired_blend(const T* dy, const T* x, const Found<float>& f, T* dx, int64_t rows, int64_t n, bool stream);

}  // namespace normkernels
