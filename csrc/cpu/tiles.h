// Mathematics on a tile: moments and their merge, the affine with its activation.
#pragma once

#include <algorithm>
#include <cmath>

#include "activations.h"
#include "simd.h"

namespace normkernels {

struct Moments {
  double count = 0, mean = 0, m2 = 0;  // m2: sum of (x - mean)^2; without centring, sum of x^2
};

// Chan's merge of two parts' moments.
inline void merge(Moments& a, const Moments& b) {
  const double count = a.count + b.count, delta = b.mean - a.mean;
  a.mean += delta * b.count / count;
  a.m2 += b.m2 + delta * delta * a.count * b.count / count;
  a.count = count;
}

// Two passes over a tile; the second also corrects what rounding left in the first.
template <bool kCenter, class C>
NK_INLINE Moments tile_moments(const C* x, int64_t n) {
  C sum = 0, rest = 0, squares = 0;
  if (kCenter) {
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) sum += x[i];
  }
  const C mean = sum / static_cast<C>(n);
#pragma omp simd reduction(+ : rest, squares)
  for (int64_t i = 0; i < n; i++) {
    const C d = x[i] - mean;
    rest += d;
    squares += d * d;
  }
  if (!kCenter) return {double(n), 0, double(squares)};
  return {double(n), double(mean) + double(rest) / n, double(squares) - double(rest) * double(rest) / n};
}

// weight + offset and bias in the compute type; null where absent.
template <class C>
struct Affine {
  const C* weight;
  const C* bias;
  Activation activation;
  C slope;

  // xhat -> u, the pre-activation
  NK_INLINE void apply(const C* xhat, C* u, int64_t j, int64_t n) const {
    const C *w = weight + j, *b = bias + j;
    if (weight && bias) {
#pragma omp simd
      for (int64_t i = 0; i < n; i++) u[i] = xhat[i] * w[i] + b[i];
    } else if (weight) {
#pragma omp simd
      for (int64_t i = 0; i < n; i++) u[i] = xhat[i] * w[i];
    } else if (bias) {
#pragma omp simd
      for (int64_t i = 0; i < n; i++) u[i] = xhat[i] + b[i];
    } else if (xhat != u) {
      std::copy(xhat, xhat + n, u);
    }
  }
};

template <class C>
NK_INLINE void normalise(C* tile, C mean, C rstd, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; i++) tile[i] = (tile[i] - mean) * rstd;
}

}  // namespace normkernels
