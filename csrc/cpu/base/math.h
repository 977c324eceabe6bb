// exp and expm1 of negative numbers, log1p, sigmoid, tanh and the normal distribution for float, so that loops over
// them vectorise; std:: for double.
#pragma once

#include "cpu/base/glibc.h"
#include "cpu/base/simd.h"

namespace normkernels {

// The shift that rounds a float to an integer when it is added, and leaves that integer in the lowest bits of the sum.
constexpr float kRound = 12582912.0f;  // 1.5 * 2^23

// min(|u|, most), where NaN is most: as words, for a minimum of floats that keeps NaN is a chain of masks.
NK_INLINE float least_magnitude(float u, float most) {
  const uint32_t size = bit_cast<uint32_t>(u) & 0x7fffffffu, limit = bit_cast<uint32_t>(most);
  return bit_cast<float>(size < limit ? size : limit);
}
NK_INLINE double least_magnitude(double u, double most) { return std::fabs(u) < most ? std::fabs(u) : most; }

// x - k ln2; ln2 in two parts keeps it exact.
NK_INLINE float reduced(float x, float k) { return (x - k * 0.693145751953125f) - k * 1.42860682030941723212e-6f; }

// 2^k e^r for |r| <= ln2 / 2, with k in the lowest bits of rounded; 0 for k = -127.
NK_INLINE float scaled_exp(float r, float rounded) {
  const float tail = 4.16683873631e-2f + r * (8.36870982435e-3f + r * 1.38146131667e-3f);
  const float p = r + r * r * (0.499999934517f + r * (0.166665206898f + r * tail));
  return (1.0f + p) * bit_cast<float>((bit_cast<uint32_t>(rounded) + 127u) << 23);
}

// e^-|u|; NaN stays NaN
NK_INLINE float exp_minus(float u) {
  const float x = -least_magnitude(u, 88.0f), rounded = x * 1.44269504088896341f + kRound, k = rounded - kRound;
  const float y = scaled_exp(reduced(x, k), rounded);
  return u == u ? y : u;
}
NK_INLINE double exp_minus(double u) { return std::exp(-std::fabs(u)); }

// e^-|u| - 1; NaN stays NaN
NK_INLINE float expm1_minus(float u) {
  const float x = -least_magnitude(u, 30.0f), k = (x * 1.44269504088896341f + kRound) - kRound;
  const float r = reduced(x, k);
  const float tail = 1.0f / 24 + r * (1.0f / 120 + r * (1.0f / 720 + r * (1.0f / 5040)));
  const float p = r + r * r * (0.5f + r * (1.0f / 6 + r * tail));
  const float scale = bit_cast<float>((static_cast<int32_t>(k) + 127) << 23), y = scale * p + (scale - 1.0f);
  return u == u ? y : u;
}
NK_INLINE double expm1_minus(double u) { return std::expm1(-std::fabs(u)); }

// For 0 <= e <= 1: log1p(e) = 2 atanh(e / (2 + e)), a series without cancellation.
NK_INLINE float log1p_unit(float e) {
  const float s = e / (2.0f + e), q = s * s;
  const float tail = 1.0f / 9 + q * (1.0f / 11 + q * (1.0f / 13 + q * (1.0f / 15)));
  return 2.0f * s * (1.0f + q * (1.0f / 3 + q * (1.0f / 5 + q * (1.0f / 7 + q * tail))));
}
NK_INLINE double log1p_unit(double e) { return std::log1p(e); }

// Of a standard normal Z: e = exp(-z^2 / 2) and P(Z > z), for 0 <= z <= kNormalEnd.
template <class C>
struct Normal {
  C e, tail;
};
template <class C>
constexpr C kNormalEnd = sizeof(C) == 8 ? C(38.6) : C(13.26);  // e is 0 there

// P(Z > z) = e t P(t), t = 1 / (1 + .34 z), a minimax fit good to 3.1e-8.
NK_INLINE Normal<float> normal(float z) {
  const float t = 1.0f / (1.0f + 0.34f * z);
  const float c[] = {0.13562050343357454f,  0.13611219736168511f,   0.11519765226500232f,
                     0.11535919496774364f,  -0.044718542343600348f, 0.20218282321214706f,
                     -0.27313289074258873f, 0.13949956887232395f,   -0.026120491933611011f};
  float p = c[8];
  for (int i = 7; i >= 0; i--) p = p * t + c[i];
  const float half = -0.5f * z, rounded = (half * 1.44269504088896341f) * z + kRound, k = rounded - kRound;
  const float e = scaled_exp(reduced(half * z, k), rounded);
  return {e, e * (t * p)};
}
NK_INLINE Normal<double> normal(double z) {
  return {std::exp(-0.5 * z * z), 0.5 * std::erfc(z * 0.70710678118654752440)};
}

template <class C>
NK_INLINE C magnitude(C u) {
  return u < 0 ? -u : u;
}

template <class C>
NK_INLINE C sigmoid(C u) {
  const C e = exp_minus(u);
  return (u > 0 ? C(1) : e) / (C(1) + e);
}
// sigmoid(u) and sigmoid(-u)
template <class C>
NK_INLINE Pair<C> sigmoids(C u) {
  const C e = exp_minus(u), r = C(1) / (C(1) + e);
  return u > 0 ? Pair<C>{r, e * r} : Pair<C>{e * r, r};
}

template <class C>
NK_INLINE C tanh(C u) {
  const C e = expm1_minus(2 * u), t = -e / (C(2) + e);
  return u < 0 ? -t : t;
}

}  // namespace normkernels
