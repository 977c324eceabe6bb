// Activations after the affine, and their derivatives, with torch's choice at the kinks. The names are the package's
// one set.
#pragma once

#include <cuda_runtime.h>

#include <cstring>

namespace normkernels::cuda {

// in the order of kActivationNames
// clang-format off
enum class Activation : int {
  kIdentity, kLeakyRelu, kRelu, kRelu6, kTanh, kSigmoid, kElu, kSelu, kGelu, kGeluTanh, kSilu, kSoftplus, kHardtanh,
  kHardsigmoid, kHardswish, kMish, kSoftsign, kUnknown,
};
// clang-format on

inline constexpr const char* kActivationNames[] = {
    "identity",  "leaky_relu", "relu",     "relu6",    "tanh",        "sigmoid",   "elu",  "selu",     "gelu",
    "gelu_tanh", "silu",       "softplus", "hardtanh", "hardsigmoid", "hardswish", "mish", "softsign",
};

inline Activation find_activation(const char* name) {
  int i = 0;
  while (i < int(Activation::kUnknown) && std::strcmp(name, kActivationNames[i]) != 0) ++i;
  return Activation(i);
}

inline constexpr double kSeluScale = 1.0507009873554804934193349852946, kSeluAlpha = 1.6732632423543772848170429916717;
inline constexpr double kSqrtHalf = 0.70710678118654752440, kDensityAtZero = 0.39894228040143267794;
inline constexpr double kGeluK = 0.79788456080286535588, kGeluA = 0.044715;

// 1 / v to two ulp; the IEEE division costs a slow path per element
__device__ inline float reciprocal(float v) { return __fdividef(1.0f, v); }
__device__ inline double reciprocal(double v) { return 1.0 / v; }

template <typename A>
__device__ A sigmoid(A u) {
  return reciprocal(A(1) + exp(-u));
}

// tanh(softplus(u)) = n / (n + 2) with n = e^u (e^u + 2); it is 1 long before e^u overflows
template <typename A>
__device__ A tanh_softplus(A u) {
  const A e = exp(u < A(20) ? u : A(20)), n = e * (e + A(2));
  return n * reciprocal(n + A(2));
}

template <typename A>
__device__ A gelu_tanh_inner(A u) {
  return tanh(A(kGeluK) * (u + A(kGeluA) * u * u * u));
}

template <typename A>
__device__ A clamp(A u, A low, A high) {  // a NaN stays a NaN
  return u < low ? low : (u > high ? high : u);
}

// u <- f(u) for V values: one uniform branch for all of them
template <typename A, int V>
__device__ void activate(A (&u)[V], Activation activation, A slope) {
  const auto each = [&](auto f) {
#pragma unroll
    for (int k = 0; k < V; ++k) u[k] = f(u[k]);
  };
  using Act = Activation;
  // clang-format off: one line each
  switch (activation) {
    case Act::kLeakyRelu: return each([=](A v) { return v < 0 ? v * slope : v; });
    case Act::kRelu: return each([](A v) { return v < 0 ? A(0) : v; });
    case Act::kRelu6: return each([](A v) { return clamp(v, A(0), A(6)); });
    case Act::kTanh: return each([](A v) { return tanh(v); });
    case Act::kSigmoid: return each([](A v) { return sigmoid(v); });
    case Act::kElu: return each([](A v) { return v < 0 ? expm1(v) : v; });
    case Act::kSelu: return each([](A v) { return A(kSeluScale) * (v < 0 ? A(kSeluAlpha) * expm1(v) : v); });
    case Act::kGelu: return each([](A v) { return A(0.5) * v * (A(1) + erf(v * A(kSqrtHalf))); });
    case Act::kGeluTanh: return each([](A v) { return A(0.5) * v * (A(1) + gelu_tanh_inner(v)); });
    case Act::kSilu: return each([](A v) { return v * sigmoid(v); });
    case Act::kSoftplus: return each([](A v) { return v > A(20) ? v : log1p(exp(v)); });
    case Act::kHardtanh: return each([](A v) { return clamp(v, A(-1), A(1)); });
    case Act::kHardsigmoid: return each([](A v) { return clamp(v + A(3), A(0), A(6)) * A(1.0 / 6); });
    case Act::kHardswish: return each([](A v) { return v * clamp(v + A(3), A(0), A(6)) * A(1.0 / 6); });
    case Act::kMish: return each([](A v) { return v * tanh_softplus(v); });
    case Act::kSoftsign: return each([](A v) { return v * reciprocal(A(1) + abs(v)); });
    default: return;
  }
  // clang-format on
}

template <typename A>
__device__ A derivative_gelu(A u) {
  return A(0.5) * (A(1) + erf(u * A(kSqrtHalf))) + u * A(kDensityAtZero) * exp(A(-0.5) * u * u);
}

template <typename A>
__device__ A derivative_gelu_tanh(A u) {
  const A t = gelu_tanh_inner(u);
  return A(0.5) * (A(1) + t) + A(0.5) * u * (A(1) - t * t) * A(kGeluK) * (A(1) + A(3 * kGeluA) * u * u);
}

// u <- f'(u) for V values
template <typename A, int V>
__device__ void differentiate(A (&u)[V], Activation activation, A slope) {
  const auto each = [&](auto f) {
#pragma unroll
    for (int k = 0; k < V; ++k) u[k] = f(u[k]);
  };
  const auto inside = [&](A low, A high, A inner) { each([=](A v) { return v > low && v < high ? inner : A(0); }); };
  using Act = Activation;
  // clang-format off: one line each
  switch (activation) {
    case Act::kLeakyRelu: return each([=](A v) { return v > 0 ? A(1) : slope; });
    case Act::kRelu: return each([](A v) { return v > 0 ? A(1) : A(0); });
    case Act::kRelu6: return inside(A(0), A(6), A(1));
    case Act::kTanh: return each([](A v) { return A(1) - tanh(v) * tanh(v); });
    case Act::kSigmoid: return each([](A v) { return sigmoid(v) * sigmoid(-v); });
    case Act::kElu: return each([](A v) { return v > 0 ? A(1) : exp(v); });
    case Act::kSelu: return each([](A v) { return A(kSeluScale) * (v > 0 ? A(1) : A(kSeluAlpha) * exp(v)); });
    case Act::kGelu: return each([](A v) { return derivative_gelu(v); });
    case Act::kGeluTanh: return each([](A v) { return derivative_gelu_tanh(v); });
    case Act::kSilu: return each([](A v) { return sigmoid(v) * (A(1) + v * sigmoid(-v)); });
    case Act::kSoftplus: return each([](A v) { return v > A(20) ? A(1) : sigmoid(v); });
    case Act::kHardtanh: return inside(A(-1), A(1), A(1));
    case Act::kHardsigmoid: return inside(A(-3), A(3), A(1.0 / 6));
    case Act::kHardswish: return each([](A v) { return v > A(3) ? A(1) : (v < A(-3) ? A(0) : v * A(1.0 / 3) + A(0.5)); });
    case Act::kMish: return each([](A v) {
        const A t = tanh_softplus(v);
        return t + v * (A(1) - t * t) * sigmoid(v);
      });
    case Act::kSoftsign: return each([](A v) { return reciprocal((A(1) + abs(v)) * (A(1) + abs(v))); });
    default: return each([](A) { return A(1); });
  }
  // clang-format on
}

}  // namespace normkernels::cuda
