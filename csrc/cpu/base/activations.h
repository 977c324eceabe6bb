// Activations on a tile, and the product of a tile with their derivative; kinks as torch has them.
#pragma once

#include <cstdint>
#include <string>

namespace normkernels {

enum class Activation {
  identity,
  relu,
  leaky_relu,
  relu6,
  tanh,
  sigmoid,
  elu,
  selu,
  gelu,
  gelu_tanh,
  silu,
  softplus,
  hardtanh,
  hardsigmoid,
  hardswish,
  mish,
  softsign
};  // clang-format off

inline const char* const kActivationNames[] = {
    "identity", "relu", "leaky_relu", "relu6", "tanh", "sigmoid", "elu", "selu", "gelu",
    "gelu_tanh", "silu", "softplus", "hardtanh", "hardsigmoid", "hardswish", "mish", "softsign"};
// clang-format on

// The activation of that name; false if there is none.
inline bool find_activation(const std::string& name, Activation& found) {
  int index = 0;
  for (const char* known : kActivationNames) {
    if (name == known) {
      found = static_cast<Activation>(index);
      return true;
    }
    index++;
  }
  return false;
}

// tile[i] = f(tile[i])
void activate(Activation f, float slope, float* tile, int64_t n);
void activate(Activation f, double slope, double* tile, int64_t n);

// out[i] *= f'(tile[i])
void times_derivative(Activation f, float slope, const float* tile, float* out, int64_t n);
void times_derivative(Activation f, double slope, const double* tile, double* out, int64_t n);

// out[i] *= f'(u) where tile[i] = f(u), for tanh, sigmoid, elu, selu, softplus and softsign: f tells its derivative.
void times_derivative_of_output(Activation f, const float* tile, float* out, int64_t n);
void times_derivative_of_output(Activation f, const double* tile, double* out, int64_t n);

}  // namespace normkernels
