// Activations and their derivatives over a tile: compiled once for float and double, cloned for every instruction set.
#include <algorithm>

#include "cpu/base/math.h"
#include "cpu/base/tiles.h"

namespace normkernels {
namespace {

template <class C>
constexpr C kSeluScale = C(1.0507009873554804934193349852946);
template <class C>
constexpr C kSeluAlpha = C(1.6732632423543772848170429916717);

template <class C>
constexpr C kDensity = C(0.39894228040143267794);  // of a standard normal at 0

template <class C>
NK_INLINE C clamp(C u, C low, C high) {
  return u < low ? low : (u > high ? high : u);  // NaN stays NaN
}
template <class C>
NK_INLINE C d_silu(C u) {
  const auto [s, complement] = sigmoids(u);
  return s * (C(1) + u * complement);
}
// tanh(softplus(u)) from exp(-|u|), so that nothing overflows or cancels.
template <class C>
NK_INLINE C mish_gate(C u) {
  const C e = exp_minus(u);
  const C positive = (C(1) + 2 * e) / (C(1) + 2 * e * (C(1) + e)), negative = e * (e + 2) / (e * (e + 2) + 2);
  return u > 0 ? positive : negative;
}
template <class C>
NK_INLINE C d_gelu(C u) {
  const C z = least_magnitude(u, kNormalEnd<C>);
  const auto [e, tail] = normal(z);
  const C below = tail - z * kDensity<C> * e, d = u > 0 ? C(1) - below : below;
  return u == u ? d : u;
}
// gelu_tanh(u) = u sigmoid(2 k (u + a u^3)), k = sqrt(2 / pi), a = 0.044715
template <class C>
NK_INLINE C gelu_tanh_argument(C u) {
  return C(2) * C(0.79788456080286535588) * u * (C(1) + C(0.044715) * u * u);
}

// A loop over the tile that vectorises: out[i] = expression of u = tile[i].
#define NK_EACH(expression)                               \
  {                                                       \
    _Pragma("omp simd") for (int64_t i = 0; i < n; i++) { \
      const C u = tile[i];                                \
      out[i] = (expression);                              \
    }                                                     \
    return;                                               \
  }

template <class C>
NK_INLINE void activate_tile(Activation f, C slope, C* tile, int64_t n) {
  C* out = tile;
  switch (f) {
    case Activation::identity:
      return;
    case Activation::relu:
      NK_EACH(u < 0 ? C(0) : u)
    case Activation::leaky_relu:
      NK_EACH(u > 0 ? u : slope * u)
    case Activation::relu6:
      NK_EACH(clamp(u, C(0), C(6)))
    case Activation::tanh:
      NK_EACH(tanh(u))
    case Activation::sigmoid:
      NK_EACH(sigmoid(u))
    case Activation::elu:
      NK_EACH(u > 0 ? u : expm1_minus(u))
    case Activation::selu:
      NK_EACH(kSeluScale<C> * (u > 0 ? u : kSeluAlpha<C> * expm1_minus(u)))
    case Activation::gelu:
      NK_EACH(gelu(u))
    case Activation::gelu_tanh:
      NK_EACH(u * sigmoid(gelu_tanh_argument(u)))
    case Activation::silu:
      NK_EACH(silu(u))
    case Activation::softplus:
      NK_EACH(u > 20 ? u : (u > 0 ? u : C(0)) + log1p_unit(exp_minus(u)))
    case Activation::hardtanh:
      NK_EACH(clamp(u, C(-1), C(1)))
    case Activation::hardsigmoid:
      NK_EACH(clamp(u + 3, C(0), C(6)) / 6)
    case Activation::hardswish:
      NK_EACH(u * clamp(u + 3, C(0), C(6)) / 6)
    case Activation::mish:
      NK_EACH(u * mish_gate(u))
    case Activation::softsign:
      NK_EACH(u / (C(1) + magnitude(u)))
  }
}

template <class C>
NK_INLINE C d_sigmoid(C u) {
  const C e = exp_minus(u);
  return e / ((C(1) + e) * (C(1) + e));
}
template <class C>
NK_INLINE C d_gelu_tanh(C u) {
  const auto [s, complement] = sigmoids(gelu_tanh_argument(u));
  return s * (C(1) + u * complement * C(2) * C(0.79788456080286535588) * (C(1) + C(3 * 0.044715) * u * u));
}

template <class C>
NK_INLINE void times_derivative_tile(Activation f, C slope, const C* tile, C* out, int64_t n) {
  switch (f) {
    case Activation::identity:
      return;
    case Activation::relu:
      NK_EACH(u > 0 ? out[i] : C(0))
    case Activation::leaky_relu:
      NK_EACH(out[i] * (u > 0 ? C(1) : slope))
    case Activation::relu6:
      NK_EACH(u > 0 && u < 6 ? out[i] : C(0))
    case Activation::tanh:
      NK_EACH(out[i] * 4 * d_sigmoid(2 * u))  // 1 - tanh(u)^2
    case Activation::sigmoid:
      NK_EACH(out[i] * d_sigmoid(u))
    case Activation::elu:
      NK_EACH(out[i] * (u > 0 ? C(1) : exp_minus(u)))
    case Activation::selu:
      NK_EACH(out[i] * kSeluScale<C> * (u > 0 ? C(1) : kSeluAlpha<C> * exp_minus(u)))
    case Activation::gelu:
      NK_EACH(out[i] * d_gelu(u))
    case Activation::gelu_tanh:
      NK_EACH(out[i] * d_gelu_tanh(u))
    case Activation::silu:
      NK_EACH(out[i] * d_silu(u))
    case Activation::softplus:
      NK_EACH(out[i] * (u > 20 ? C(1) : sigmoid(u)))
    case Activation::hardtanh:
      NK_EACH(u > -1 && u < 1 ? out[i] : C(0))
    case Activation::hardsigmoid:
      NK_EACH(u > -3 && u < 3 ? out[i] / 6 : C(0))
    case Activation::hardswish:
      NK_EACH(out[i] * (u > 3 ? C(1) : (u >= -3 ? u / 3 + C(0.5) : C(0))))
    case Activation::mish: {
      NK_EACH(out[i] * (mish_gate(u) + u * (C(1) - mish_gate(u) * mish_gate(u)) * sigmoid(u)))
    }
    case Activation::softsign:
      NK_EACH(out[i] / ((C(1) + magnitude(u)) * (C(1) + magnitude(u))))
  }
}

template <class C>
NK_INLINE C positive_part(C u) {
  return u < 0 ? C(0) : u;
}

// u is f's value here; rounding may have taken it a little too far.
template <class C>
NK_INLINE void times_derivative_of_output_tile(Activation f, const C* tile, C* out, int64_t n) {
  switch (f) {
    case Activation::tanh:
      NK_EACH(out[i] * positive_part(C(1) - u * u))
    case Activation::sigmoid:
      NK_EACH(out[i] * positive_part(u * (C(1) - u)))
    case Activation::elu:
      NK_EACH(out[i] * (u > 0 ? C(1) : positive_part(u + C(1))))
    case Activation::selu:
      NK_EACH(out[i] * (u > 0 ? kSeluScale<C> : positive_part(u + kSeluScale<C> * kSeluAlpha<C>)))
    case Activation::softplus:
      NK_EACH(out[i] * -expm1_minus(u))
    case Activation::softsign:
      NK_EACH(out[i] * positive_part(C(1) - magnitude(u)) * positive_part(C(1) - magnitude(u)))
    default:
      return;
  }
}
#undef NK_EACH

constexpr int64_t kBetween = 256;  // elements: more lines at once would have to wait for each other

// f(j, m) for parts of n elements, each of which asks for as much of what comes.
template <class F>
NK_INLINE void each_asking(const Coming& coming, int64_t n, const F& f) {
  const int64_t most = coming.bytes ? kBetween : n;
  for (int64_t j = 0; j < n; j += most) {
    const int64_t m = std::min(most, n - j);
    for (const void* from : coming.first)
      if (from) prefetch_tile(static_cast<const char*>(from) + j * coming.bytes, m * coming.bytes);
    f(j, m);
  }
}

}  // namespace

NK_CLONES void activate(Activation f, float slope, float* tile, int64_t n, const Coming& coming) {
  each_asking(coming, n, [=](int64_t j, int64_t m) NK_INLINED { activate_tile(f, slope, tile + j, m); });
}
NK_CLONES void activate(Activation f, double slope, double* tile, int64_t n, const Coming& coming) {
  each_asking(coming, n, [=](int64_t j, int64_t m) NK_INLINED { activate_tile(f, slope, tile + j, m); });
}

NK_CLONES void times_derivative(Activation f, float slope, const float* tile, float* out, int64_t n,
                                const Coming& coming) {
  each_asking(coming, n,
              [=](int64_t j, int64_t m) NK_INLINED { times_derivative_tile(f, slope, tile + j, out + j, m); });
}
NK_CLONES void times_derivative(Activation f, double slope, const double* tile, double* out, int64_t n,
                                const Coming& coming) {
  each_asking(coming, n,
              [=](int64_t j, int64_t m) NK_INLINED { times_derivative_tile(f, slope, tile + j, out + j, m); });
}

NK_CLONES void times_derivative_of_output(Activation f, const float* tile, float* out, int64_t n) {
  times_derivative_of_output_tile(f, tile, out, n);
}
NK_CLONES void times_derivative_of_output(Activation f, const double* tile, double* out, int64_t n) {
  times_derivative_of_output_tile(f, tile, out, n);
}

}  // namespace normkernels
