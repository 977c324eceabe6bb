// exp, expm1, log1p, sigmoid, tanh and the normal distribution for float, so that loops over them vectorise; std:: for
// double.
#pragma once

#include <cmath>

#include "cpu/base/simd.h"

namespace normkernels {

// x = k ln2 + r with |r| <= ln2 / 2; returns expm1(r) and leaves k. ln2 in two parts keeps r exact.
NK_INLINE float reduced_expm1(float x, float& k) {
  const float shift = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  k = (x * 1.44269504088896341f + shift) - shift;
  const float r = (x - k * 0.693145751953125f) - k * 1.42860682030941723212e-6f;
  const float tail = 1.0f / 24 + r * (1.0f / 120 + r * (1.0f / 720 + r * (1.0f / 5040)));
  return r + r * r * (0.5f + r * (1.0f / 6 + r * tail));
}

NK_INLINE float power_of_two(float k) { return bit_cast<float>((static_cast<int32_t>(k) + 127) << 23); }

// 2^k e^r; below 2^-126 it is 0. The sum that rounds x / ln2 leaves k in its lowest bits, ready to be an exponent.
NK_INLINE float exp(float x) {
  const float shift = 12582912.0f;
  x = x < -88.0f ? -88.0f : (x > 89.0f ? 89.0f : x);
  const float rounded = x * 1.44269504088896341f + shift, k = rounded - shift;
  const float r = (x - k * 0.693145751953125f) - k * 1.42860682030941723212e-6f;
  const float tail = 4.1665795894e-2f + r * (8.3334519073e-3f + r * (1.3981999507e-3f + r * 1.9875691500e-4f));
  const float p = r + r * r * (0.50000001201f + r * (0.16666665459f + r * tail));
  return (1.0f + p) * bit_cast<float>((bit_cast<uint32_t>(rounded) + 127u) << 23);
}
NK_INLINE double exp(double x) { return std::exp(x); }

// For x <= 0, where the activations need it.
NK_INLINE float expm1_negative(float x) {
  x = x < -30.0f ? -30.0f : x;
  float k;
  const float p = reduced_expm1(x, k), scale = power_of_two(k);
  return scale * p + (scale - 1.0f);
}
NK_INLINE double expm1_negative(double x) { return std::expm1(x); }

// For 0 <= e <= 1: log1p(e) = 2 atanh(e / (2 + e)), a series without cancellation.
NK_INLINE float log1p_unit(float e) {
  const float s = e / (2.0f + e), q = s * s;
  const float tail = 1.0f / 9 + q * (1.0f / 11 + q * (1.0f / 13 + q * (1.0f / 15)));
  return 2.0f * s * (1.0f + q * (1.0f / 3 + q * (1.0f / 5 + q * (1.0f / 7 + q * tail))));
}
NK_INLINE double log1p_unit(double e) { return std::log1p(e); }

// P(Z <= u) for a standard normal Z: erfc(z) exp(z^2) = t P(t), t = 2 / (2 + z), a Chebyshev fit good to 2.4e-9.
NK_INLINE float normal_cdf(float u) {
  const float z = std::fabs(u) * 0.70710678118654752f, t = 2.0f / (2.0f + z);
  const float c[] = {0.2820873735959077f,   0.28228320770455867f,  0.2448280281341778f,   0.18783573964591402f,
                     0.045984989935559106f, 0.05841970419045086f,  -0.06143911873135638f, -0.24509442693485012f,
                     0.34976588433552064f,  -0.17815641924395853f, 0.033485039541453446f};
  float p = c[10];
  for (int i = 9; i >= 0; i--) p = p * t + c[i];
  const float upper = 0.5f * exp(-0.5f * u * u) * t * p;
  return u > 0 ? 1.0f - upper : upper;
}
NK_INLINE double normal_cdf(double u) { return 0.5 * std::erfc(-u * 0.70710678118654752440); }

template <class C>
NK_INLINE C magnitude(C u) {
  return u < 0 ? -u : u;
}

template <class C>
NK_INLINE C sigmoid(C u) {
  return C(1) / (C(1) + exp(-u));
}

template <class C>
NK_INLINE C tanh(C u) {
  const C e = expm1_negative(C(-2) * magnitude(u)), t = -e / (C(2) + e);
  return u < 0 ? -t : t;
}

}  // namespace normkernels
