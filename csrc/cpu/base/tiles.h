// Mathematics on a tile, the unit that is loaded, computed and stored at once. Every function here is compiled once per
// instruction set and vectorised; the code that walks tiles is plain. T is the element type, C the compute type, D
// either.
#pragma once

#include <cstdint>
#include <limits>
#include <string>

#include "cpu/base/simd.h"

namespace normkernels {

constexpr int64_t kTile = 2048;  // elements: a few tiles fit in the first-level cache

struct Moments {
  double count = 0, mean = 0, m2 = 0;  // m2: sum of (x - mean)^2; for the uncentred moments mean is 0
};

// Chan's merge of two parts' moments.
inline void merge(Moments& a, const Moments& b) {
  if (a.count == 0) {
    a = b;
    return;
  }
  const double count = a.count + b.count, delta = b.mean - a.mean;
  a.mean += delta * b.count / count;
  a.m2 += b.m2 + delta * delta * a.count * b.count / count;
  a.count = count;
}

// xhat = (x - mean) * rstd + shift; weight and bias of the tile's units, null where absent.
template <class C>
struct TileAffine {
  C mean, rstd;
  const C *weight, *bias;
  C shift = C(-0.0);  // for what the mean lost when it was rounded; adding -0 changes nothing
};

// What is known of a row: xhat = (x - mean) * rstd + shift.
template <class C>
struct KnownRow {
  C mean, rstd, shift;
};

// What follows the statistics of every family: weight, bias and one of these.
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

// weight + offset and bias in the compute type, null where absent, and what follows them.
template <class C>
struct Affine {
  const C *weight, *bias;
  Activation activation;
  C slope;

  TileAffine<C> at(const KnownRow<C>& row, int64_t j) const {
    return {row.mean, row.rstd, weight ? weight + j : nullptr, bias ? bias + j : nullptr, row.shift};
  }
};

// Means as far as that many standard deviations from 0 lose no more than a few units in the last place of xhat.
constexpr double kNear = 8;

template <class T>
Moments centred_moments(const T* x, int64_t n);
template <class T>
Moments uncentred_moments(const T* x, int64_t n);
// Either in double, where the square of any float fits
template <class T>
Moments wide_moments(const T* x, bool centred, int64_t n);

// How far from the mean sums may be taken: the rounding of b - a^2 / n is this much larger than about the mean.
template <class C>
constexpr C kFar = C(4);

// The least and the most that n squares of values in T, summed in its compute type, may be to be right: float
// overflows, and drops what underflows, which matters where next to nothing is added to it. double holds the squares of
// all floats.
template <class T>
NK_INLINE Pair<double> fitting_squares(int64_t n, double eps) {
  using Limits = std::numeric_limits<compute_t<T>>;
  constexpr double kLeast = 2 * static_cast<double>(Limits::min()), kAny = std::numeric_limits<double>::infinity();
  if (sizeof(compute_t<T>) == 8) return {-kAny, kAny};
  return {eps > 1e-30 ? -kAny : kLeast * static_cast<double>(n), static_cast<double>(Limits::max())};
}
// Whether they are, NaN among doubles too
template <class T>
NK_INLINE bool squares_fit(double squares, int64_t n, double eps) {
  const Pair<double> fitting = fitting_squares<T>(n, eps);
  return sizeof(compute_t<T>) == 8 || (squares >= fitting.a && squares <= fitting.b);
}

// Either as it comes out right; eps: what is added to the variance, so that it tells whether lost squares matter.
template <class T>
Moments right_moments(const T* x, bool centred, int64_t n, double eps) {
  const Moments found = centred ? centred_moments(x, n) : uncentred_moments(x, n);
  return squares_fit<T>(found.m2, n, eps) ? found : wide_moments(x, centred, n);
}

// The sum of x - mean
template <class T>
compute_t<T> sum_about(const T* x, compute_t<T> mean, int64_t n);

// s = x + residual, rounded to T
template <class T>
void add_tiles(const T* x, const T* residual, T* s, int64_t n);

// Adds sums to totals and clears them.
template <class C>
void drain(C* sums, double* totals, int64_t n);

// u = xhat * weight + bias, as the compute type or rounded to T
template <class T, class Out>
void affine_tile(const T* x, const TileAffine<compute_t<T>>& k, Out* u, int64_t n);

// The sums of g and g * xhat, with g = du * weight
template <class T, class D>
Pair<compute_t<T>> gradient_sums(const D* du, const T* x, const TileAffine<compute_t<T>>& k, int64_t n);

// out = rstd * (g - means.a - xhat * means.b) + dsummed, with the means of g and g * xhat; dweight += du * xhat and
// dbias += du. dsummed, dweight and dbias may be null.
template <class T, class D>
void gradients(const D* du, const T* x, const T* dsummed, const TileAffine<compute_t<T>>& k, Pair<compute_t<T>> means,
               T* out, compute_t<T>* dweight, compute_t<T>* dbias, int64_t n);

template <class T>
void load_tile(const T* source, compute_t<T>* tile, int64_t n);
template <class T>
void store_tile(const compute_t<T>* tile, T* target, int64_t n);

// What comes after a tile, of up to three tensors, n elements of each. An activation takes as long as memory needs to
// bring it, but loads none by itself: so it asks for it, a few lines at a time.
struct Coming {
  const void* first[3] = {};
  int64_t bytes = 0;  // of an element

  template <class T>
  static Coming of(const T* a, const T* b = nullptr, const T* c = nullptr) {
    return {{a, b, c}, sizeof(T)};
  }
};

// Activations, kinks as torch has them: tile[i] = f(tile[i])
void activate(Activation f, float slope, float* tile, int64_t n, const Coming& coming = {});
void activate(Activation f, double slope, double* tile, int64_t n, const Coming& coming = {});

// out[i] *= f'(tile[i])
void times_derivative(Activation f, float slope, const float* tile, float* out, int64_t n, const Coming& coming = {});
void times_derivative(Activation f, double slope, const double* tile, double* out, int64_t n,
                      const Coming& coming = {});

// out[i] *= f'(u) where tile[i] = f(u), for tanh, sigmoid, elu, selu, softplus and softsign: f tells its derivative.
void times_derivative_of_output(Activation f, const float* tile, float* out, int64_t n);
void times_derivative_of_output(Activation f, const double* tile, double* out, int64_t n);

// Whether a cache line begins there
inline bool on_line(const void* at) { return reinterpret_cast<uintptr_t>(at) % 64 == 0; }

// Copy to memory past the caches: for results too large to be found there again, it saves reading them first.
void copy_nontemporal(const void* tile, void* target, int64_t bytes);
// Order streamed stores before whatever the thread does next.
void nontemporal_fence();

}  // namespace normkernels
