// The row family on the CPU, forward: normalise each row of an (M, N) tensor.
#pragma once

#include <cmath>

#include "cpu/base/activated.h"
#include "cpu/base/gate.h"
#include "cpu/base/sweep.h"
#include "cpu/base/tiles.h"
#include "cpu/rows/narrow.h"
#include "runs.h"

namespace normkernels {

// From that many values on
template <class C>
Affine<C> affine_of(Affine<C> affine, int64_t first) {
  if (affine.weight) affine.weight += first;
  if (affine.bias) affine.bias += first;
  return affine;
}

// f(a, first, end) for the rows [begin, end), those by themselves of which each tensor that is read has one run: of
// them a row lies where its stride says.
template <class Rows, class F>
NK_INLINE void each_run(const Rows& a, int64_t begin, int64_t end, const F& f) {
  if (a.one_run()) return f(a, begin, end);
  for (int64_t m = begin, last = end; m < end; m = std::exchange(last, end)) {
    Rows own = a;
    Rows::each_read(own, [&](auto& from, int64_t stride, Runs& runs) NK_INLINED {
      if (!runs) return;
      from += runs.shift(m, stride);
      last = std::min(last, runs.end(m));
      runs = {};
    });
    f(std::as_const(own), m, last);
  }
}

constexpr int64_t kLongEnough = 128;  // elements of a row whose activation is part of the loop

template <class T>
struct RowsForward {
  using C = compute_t<T>;
  int64_t M, N;
  const T* x;
  int64_t x_stride;
  Runs x_runs = {};
  const T* residual;  // or null
  int64_t residual_stride;
  Runs residual_runs = {};
  Affine<C> affine;
  int64_t samples = 1;      // of as many rows each, with a weight and a bias of their own
  const T* gate = nullptr;  // or what the activation is given instead of y, which it multiplies
  int64_t gate_stride = 0;
  Runs gate_runs = {};
  T *y, *summed;   // summed: null without residual
  C *mean, *rstd;  // mean: null without centring
  double eps;
  bool nontemporal = sizeof(T) >= 4 && large<T>(M * N);  // in 16 bits the copy of each tile costs more than it saves

  // The same for the rows of a sample alone
  RowsForward of_sample(int64_t sample) const {
    RowsForward own = *this;
    own.affine = affine_of(affine, sample * N);
    return own;
  }

  // f of all that is read row by row
  template <class F>
  NK_INLINE static void each_read(auto& a, const F& f) {
    f(a.x, a.x_stride, a.x_runs);
    f(a.residual, a.residual_stride, a.residual_runs);
    f(a.gate, a.gate_stride, a.gate_runs);
  }
  bool one_run() const { return !x_runs && !residual_runs && !gate_runs; }

  // Where s = x + residual of a row goes, rounded to T, and what is normalised: that, or x
  T* sum(int64_t m) const { return residual ? summed + m * N : nullptr; }
  const T* input(int64_t m) const { return residual ? sum(m) : x + m * x_stride; }

  bool plain() const { return affine.activation == Activation::identity && !gate; }
  // Whether what follows weight and bias is computed as y is written. The last values of short rows would be
  // computed twice, and conversions leave it too few registers: that only pays where u fills the first cache.
  bool in_loop() const {
    const bool fits = sizeof(C) == 4 && N >= (sizeof(T) == 2 ? 2 * kTile : kLongEnough);
    return plain() || (fits && !gate && is_in_loops(affine.activation));
  }

  // What follows weight and bias, of values u of row m from column j on
  void complete(int64_t m, int64_t j, C* u, int64_t n) const {
    if (!gate) return activate(affine.activation, affine.slope, u, n);
    gate_tile(affine.activation, affine.slope, gate + m * gate_stride + j, u, n);
  }

  static constexpr bool kPrefetch = true;
  int64_t group() const { return group_rows(N * sizeof(T)); }  // weight and bias tiles serve all of them
  void prefetch(int64_t m, int64_t j, int64_t n) const { prefetch_tile(x + m * x_stride + j, n); }

  Moments measure(int64_t m, int64_t j, int64_t n) const {
    if (residual) add_tiles(x + m * x_stride + j, residual + m * residual_stride + j, summed + m * N + j, n);
    return right_moments(input(m) + j, mean, n, eps);
  }

  KnownRow<C> finish(int64_t m, const Moments& total) const {
    const C centre = static_cast<C>(total.mean);
    if (mean) mean[m] = centre;
    rstd[m] = static_cast<C>(1 / std::sqrt(total.m2 / static_cast<double>(N) + eps));
    return {centre, rstd[m], static_cast<C>(-(total.mean - centre) * rstd[m])};
  }

  void write(int64_t m, int64_t j, int64_t n, const KnownRow<C>& row) const {
    alignas(64) C u[kTile];
    alignas(64) T out[kTile];
    const TileAffine<C> k = affine.at(row, j);
    T* const target = nontemporal ? out : y + m * N + j;
    if (plain()) {
      affine_tile(input(m) + j, k, target, n);
    } else {
      affine_tile(input(m) + j, k, u, n);
      complete(m, j, u, n);
      store_tile(u, target, n);
    }
    if (nontemporal) copy_nontemporal(out, y + m * N + j, n * sizeof(T));
  }
};

// f(a, first, end) for the rows [begin, end), those of each sample and of each run by themselves
template <class T, class F>
void each_part(const RowsForward<T>& a, int64_t begin, int64_t end, const F& f) {
  if (a.samples == 1) return each_run(a, begin, end, f);
  const int64_t rows = a.M / a.samples;
  for (int64_t m = begin; m < end; m = (m / rows + 1) * rows)
    each_run(a.of_sample(m / rows), m, std::min(end, (m / rows + 1) * rows), f);
}

template <class T>
void forward(const RowsForward<T>& a) {
  if constexpr (sizeof(T) == 2)
    if (paired(a.N, true)) return paired_forward(a);
  const bool few_values = narrow(a.N, a.in_loop() ? longest(a.N) : kTile) || short_rows(a.N);
  if (!few_values && split_rows(a.M, a.N))
    return each_part(a, 0, a.M, [](const auto& own, int64_t begin, int64_t end) {
      for (int64_t m = begin; m < end; m++) sweep_split(own, m);
    });
  parallel_for(0, a.M, grain(a.N), [&](int64_t first, int64_t last) {
    each_part(a, first, last, [&](const auto& own, int64_t begin, int64_t end) {
      if (!few_values) return sweep_rows(own, begin, end);
      short_rows(a.N) ? short_forward(own, begin, end) : narrow_forward(own, begin, end);
    });
  });
}

}  // namespace normkernels
