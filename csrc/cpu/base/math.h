// exp and expm1 of negative numbers, log1p, sigmoid, tanh, the normal distribution and what is made of them, for float,
// so that loops over them vectorise, and for a few at once; std:: for double.
#pragma once

#include <concepts>

#include "cpu/base/few.h"
#include "cpu/base/glibc.h"

namespace normkernels {

// A float, or a vector of them, and as many words.
template <class V>
concept Floats = !std::same_as<V, double>;
template <class V>
struct Words32 {
  using type = uint32_t;
};
#if defined(NK_SHUFFLES)
template <class V>
  requires(!std::is_arithmetic_v<V>)
struct Words32<V> {
  using type = Lanes<uint32_t, kWidth<V>>;
};
#endif
template <class V>
using words_t = typename Words32<V>::type;

// The shift that rounds a float to an integer when it is added, and leaves that integer in the lowest bits of the sum.
constexpr float kRound = 12582912.0f;  // 1.5 * 2^23

// min(|u|, most), where NaN is most: as words, for a minimum of floats that keeps NaN is a chain of masks.
template <Floats V>
NK_INLINE V least_magnitude(V u, float most) {
  using W = words_t<V>;
  const W size = bit_cast<W>(u) & 0x7fffffffu, limit = W{} + bit_cast<uint32_t>(most);
  return bit_cast<V>(size < limit ? size : limit);
}
NK_INLINE double least_magnitude(double u, double most) { return std::fabs(u) < most ? std::fabs(u) : most; }

// x - k ln2; ln2 in two parts keeps it exact.
template <Floats V>
NK_INLINE V reduced(V x, V k) {
  return (x - k * 0.693145751953125f) - k * 1.42860682030941723212e-6f;
}

// 2^k e^r for |r| <= ln2 / 2, with k in the lowest bits of rounded; 0 for k = -127.
template <Floats V>
NK_INLINE V scaled_exp(V r, V rounded) {
  const V tail = 4.16683873631e-2f + r * (8.36870982435e-3f + r * 1.38146131667e-3f);
  const V p = r + r * r * (0.499999934517f + r * (0.166665206898f + r * tail));
  return (1.0f + p) * bit_cast<V>((bit_cast<words_t<V>>(rounded) + 127u) << 23);
}

// e^-|u|; NaN stays NaN
template <Floats V>
NK_INLINE V exp_minus(V u) {
  const V x = -least_magnitude(u, 88.0f), rounded = x * 1.44269504088896341f + kRound, k = rounded - kRound;
  const V y = scaled_exp(reduced(x, k), rounded);
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
template <class V>
constexpr float kNormalEnd = 13.26f;  // e is 0 there
template <>
inline constexpr double kNormalEnd<double> = 38.6;

// P(Z > z) = e t P(t), t = 1 / (1 + .34 z), a minimax fit good to 3.1e-8.
template <Floats V>
NK_INLINE Normal<V> normal(V z) {
  const V t = 1.0f / (1.0f + 0.34f * z);
  const float c[] = {0.13562050343357454f,  0.13611219736168511f,   0.11519765226500232f,
                     0.11535919496774364f,  -0.044718542343600348f, 0.20218282321214706f,
                     -0.27313289074258873f, 0.13949956887232395f,   -0.026120491933611011f};
  V p = c[8] * t + c[7];
  for (int i = 6; i >= 0; i--) p = p * t + c[i];
  const V half = -0.5f * z, rounded = (half * 1.44269504088896341f) * z + kRound, k = rounded - kRound;
  const V e = scaled_exp(reduced(half * z, k), rounded);
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

// u sigmoid(u) with one division
template <class V>
NK_INLINE V silu(V u) {
  const V e = exp_minus(u);
  return (u > 0 ? u : u * e) / (1.0f + e);
}
// u P(Z < u) = max(u, 0) - |u| P(Z > |u|)
template <class V>
NK_INLINE V gelu(V u) {
  const V z = least_magnitude(u, kNormalEnd<V>);
  return (u < 0 ? V{} : u) - z * normal(z).tail;
}

template <class C>
NK_INLINE C tanh(C u) {
  const C e = expm1_minus(2 * u), t = -e / (C(2) + e);
  return u < 0 ? -t : t;
}

}  // namespace normkernels
