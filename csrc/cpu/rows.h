// The row family on the CPU, forward: normalise each row of an (M, N) tensor.
#pragma once

#include <cmath>

#include "activations.h"
#include "sweep.h"

namespace normkernels {

// weight + offset and bias in the compute type, null where absent, and what follows them.
template <class C>
struct Affine {
  const C *weight, *bias;
  Activation activation;
  C slope;

  Columns<C> columns(C mean, C rstd, int64_t j) const {
    return {mean, rstd, weight ? weight + j : nullptr, bias ? bias + j : nullptr};
  }
};

template <class T>
struct RowsForward {
  using C = compute_t<T>;
  int64_t M, N;
  const T* x;
  int64_t x_stride;
  const T* residual;  // or null
  int64_t residual_stride;
  Affine<C> affine;
  T *y, *summed;   // summed: null without residual
  C *mean, *rstd;  // mean: null without centring
  double eps;
  bool stream = sizeof(T) >= 4 && large<T>(M * N);  // in 16 bits the copy of each tile costs more than it saves

  // What is normalised: x, or s = x + residual rounded to T.
  const T* input(int64_t m) const { return residual ? summed + m * N : x + m * x_stride; }

  static constexpr bool kPrefetch = true;
  int64_t group() const { return group_rows(N * sizeof(T)); }  // weight and bias tiles serve all of them
  void prefetch(int64_t m, int64_t j, int64_t n) const { prefetch_tile(x + m * x_stride + j, n); }

  Moments measure(int64_t m, int64_t j, int64_t n) const {
    if (residual) add_tiles(x + m * x_stride + j, residual + m * residual_stride + j, summed + m * N + j, n);
    return mean ? centred_moments(input(m) + j, n) : uncentred_moments(input(m) + j, n);
  }

  // The mean and rstd of a row
  Pair<C> finish(int64_t m, const Moments& total) const {
    if (mean) mean[m] = static_cast<C>(total.mean);
    rstd[m] = static_cast<C>(1 / std::sqrt(total.m2 / static_cast<double>(N) + eps));
    return {mean ? mean[m] : C(0), rstd[m]};
  }

  void write(int64_t m, int64_t j, int64_t n, Pair<C> found) const {
    alignas(64) C u[kTile];
    alignas(64) T out[kTile];
    const Columns<C> columns = affine.columns(found.a, found.b, j);
    T* const target = stream ? out : y + m * N + j;
    if (affine.activation == Activation::identity) {
      affine_tile(input(m) + j, columns, target, n);
    } else {
      affine_tile(input(m) + j, columns, u, n);
      activate(affine.activation, affine.slope, u, n);
      store_tile(u, target, n);
    }
    if (stream) stream_bytes(out, y + m * N + j, n * sizeof(T));
  }
};

template <class T>
void forward(const RowsForward<T>& a) {
  sweep(a);
}

}  // namespace normkernels
