// Layer norm and RMS norm by the formula, in long double, one loop per line of it.
#pragma once

#include <cmath>
#include <string>
#include <vector>

using Real = long double;

inline Real sigmoid(Real u) { return 1 / (1 + std::exp(-u)); }

inline Real activation(const std::string& name, Real u, Real slope) {
  const auto clamp = [](Real v, Real low, Real high) { return v < low ? low : v > high ? high : v; };
  const Real scale = 1.0507009873554804934193349852946L, alpha = 1.6732632423543772848170429916717L;
  if (name == "leaky_relu") return u > 0 ? u : slope * u;
  if (name == "relu") return u > 0 ? u : 0;
  if (name == "relu6") return clamp(u, 0, 6);
  if (name == "tanh") return std::tanh(u);
  if (name == "sigmoid") return sigmoid(u);
  if (name == "elu") return u > 0 ? u : std::expm1(u);
  if (name == "selu") return scale * (u > 0 ? u : alpha * std::expm1(u));
  if (name == "gelu") return u * std::erfc(-u * std::sqrt(0.5L)) / 2;
  if (name == "gelu_tanh")
    return u / 2 * (1 + std::tanh(std::sqrt(2 / std::acos(-1.0L)) * (u + 0.044715L * u * u * u)));
  if (name == "silu") return u * sigmoid(u);
  if (name == "softplus") return u > 20 ? u : std::log1p(std::exp(u));
  if (name == "hardtanh") return clamp(u, -1, 1);
  if (name == "hardsigmoid") return clamp(u + 3, 0, 6) / 6;
  if (name == "hardswish") return u * clamp(u + 3, 0, 6) / 6;
  if (name == "mish") return u * std::tanh(std::log1p(std::exp(u)));
  if (name == "softsign") return u / (1 + std::fabs(u));
  return u;
}

// f'(u) by a central difference; long double leaves ten digits of it
inline Real derivative(const std::string& name, Real u, Real slope) {
  const Real h = 1e-6L;
  return (activation(name, u + h, slope) - activation(name, u - h, slope)) / (2 * h);
}

// One row: x of N values in; weight and bias may be empty.
struct Row {
  std::vector<Real> xhat, u, y, g, du, dx;
  Real mean = 0, rstd = 0;

  Row(const std::vector<Real>& x, bool center, double eps, const std::vector<Real>& w, const std::vector<Real>& b,
      const std::string& name, Real slope) {
    const size_t N = x.size();
    Real variance = 0;
    for (const Real v : x) mean += center ? v / N : 0;
    for (const Real v : x) variance += (v - mean) * (v - mean) / N;
    rstd = 1 / std::sqrt(variance + eps);
    for (size_t i = 0; i < N; ++i) {
      xhat.push_back((x[i] - mean) * rstd);
      u.push_back(xhat[i] * w[i] + b[i]);
      y.push_back(activation(name, u[i], slope));
    }
  }

  void backward(const std::vector<Real>& dy, const std::vector<Real>& dsummed, bool center, const std::vector<Real>& w,
                const std::string& name, Real slope) {
    const size_t N = xhat.size();
    Real c1 = 0, c2 = 0;
    for (size_t i = 0; i < N; ++i) {
      du.push_back(dy[i] * derivative(name, u[i], slope));
      g.push_back(du[i] * w[i]);
      c1 += center ? g[i] / N : 0;
      c2 += g[i] * xhat[i] / N;
    }
    for (size_t i = 0; i < N; ++i) dx.push_back(rstd * (g[i] - c1 - xhat[i] * c2) + dsummed[i]);
  }
};
