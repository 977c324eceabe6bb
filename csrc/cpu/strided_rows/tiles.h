// Mathematics on a strip of adjacent rows of one (N, S) slice, unit by unit: each row is normalised over the N units.
#pragma once

#include "cpu/base/simd.h"

namespace normkernels {

// Per row of a strip; buffers of at least n elements.
template <class C>
struct Strip {
  const C *mean, *rstd, *shift;  // xhat = (x - mean) * rstd + shift; shift: null for zeros
  C *a, *b;                      // forward: sum and sum of squares; backward: sums, then means, of g and g * xhat
};

// a += x
template <class T>
void add_units(const T* x, compute_t<T>* a, int64_t n);

// a += x - mean, b += (x - mean)^2
template <class T>
void centred_sums(const T* x, const compute_t<T>* mean, compute_t<T>* a, compute_t<T>* b, int64_t n);

// u = xhat * weight + bias, as the compute type or rounded to T
template <class T, class Out>
void affine_strip(const T* x, const Strip<compute_t<T>>& strip, compute_t<T> weight, compute_t<T> bias, Out* u,
                  int64_t n);

// a += g, b += g * xhat with g = du * weight; adds the sums over the strip of du * xhat and du
template <class T, class D>
void gradient_strip(const D* du, const T* x, const Strip<compute_t<T>>& strip, compute_t<T> weight,
                    compute_t<T>& dweight, compute_t<T>& dbias, int64_t n);

// out = rstd * (du * weight - a - xhat * b) + dsummed; dsummed may be null
template <class T, class D>
void input_gradient_strip(const D* du, const T* x, const T* dsummed, const Strip<compute_t<T>>& strip,
                          compute_t<T> weight, T* out, int64_t n);

}  // namespace normkernels
