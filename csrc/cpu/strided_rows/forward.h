// Rows whose units lie a stride apart, on the CPU: each of the S rows of the (N, S) slices of a (B, N, S) tensor.
//
// A strip of adjacent rows is walked unit by unit: once for the means, once for the centred squares, once to write. Its
// width is chosen so that the second and third walk find it in the second-level cache. A row's sums run over its N
// units, so its result depends on nothing else.
#pragma once

#include <cmath>

#include "cpu/base/tiles.h"
#include "cpu/base/work.h"
#include "cpu/strided_rows/tiles.h"

namespace normkernels {

constexpr int64_t kStrip = 512;  // rows of a strip at most
constexpr int64_t kRun = 256;    // units that are summed in the compute type

inline int64_t strip_width(int64_t N, int64_t bytes) {
  return std::clamp<int64_t>((int64_t{1} << 18) / (N * bytes) / 16 * 16, 16, kStrip);
}

template <class C>
struct StripBuffers {
  alignas(64) C a[kStrip] = {}, b[kStrip] = {}, u[kStrip], du[kStrip], shift[kStrip];
  double total_a[kStrip] = {}, total_b[kStrip] = {};
  Strip<C> strip;

  StripBuffers(const C* mean, const C* rstd) : strip{mean, rstd, nullptr, a, b} {}

  // Whether the mean of row i, or of any, is so far from 0 that xhat wants what it lost in rounding
  bool is_far(int64_t i) const { return std::fabs(strip.mean[i]) * strip.rstd[i] > kNear; }
  bool far(int64_t n) const {
    bool any = false;
    for (int64_t i = 0; i < n; i++) any |= is_far(i);
    return any;
  }
  // left(i): what that is, for row i
  template <class F>
  void put_shift(int64_t n, const F& left) {
    for (int64_t i = 0; i < n; i++) shift[i] = is_far(i) ? static_cast<C>(-left(i) * strip.rstd[i]) : C(-0.0);
    strip.shift = shift;
  }

  // Call f with each of the N units; a and b, which it adds to, go into the totals before they grow long.
  template <class F>
  void sum_units(int64_t N, int64_t n, const F& f) {
    std::fill_n(total_a, n, 0.0);
    std::fill_n(total_b, n, 0.0);
    for (int64_t k = 0; k < N; k++) {
      f(k);
      if (k + 1 < N && (k + 1) % kRun != 0) continue;
      drain(a, total_a, n);
      drain(b, total_b, n);
    }
  }
};

// Both directions: the shape, and how strips are numbered.
struct Slices {
  int64_t B, N, S, width;

  int64_t strips() const { return (S + width - 1) / width; }
  // f(element offset of the strip's first unit, statistics offset, rows) for strip k of all B * strips()
  template <class F>
  void strip(int64_t k, const F& f) const {
    const int64_t batch = k / strips(), first = k % strips() * width;
    f(batch * N * S + first, batch * S + first, std::min(width, S - first));
  }
};

template <class T>
struct StridedRowsForward {
  using C = compute_t<T>;
  Slices slices;
  const T *x, *residual;  // residual: or null
  Affine<C> affine;
  T *y, *summed;
  C *mean, *rstd;
  double eps;

  void strip(int64_t at, int64_t statistics, int64_t n) const {
    const int64_t N = slices.N, S = slices.S;
    const T* s = residual ? summed : x;
    C *mu = mean + statistics, *r = rstd + statistics;
    StripBuffers<C> buffers(mu, r);
    buffers.sum_units(N, n, [&](int64_t k) {
      if (residual) add_tiles(x + at + k * S, residual + at + k * S, summed + at + k * S, n);
      add_units(s + at + k * S, buffers.a, n);
    });
    for (int64_t i = 0; i < n; i++) mu[i] = static_cast<C>(buffers.total_a[i] / N);
    buffers.sum_units(N, n, [&](int64_t k) { centred_sums(s + at + k * S, mu, buffers.a, buffers.b, n); });
    double centre[kStrip];
    bool fit = true;
    for (int64_t i = 0; i < n; i++) {
      const double left = buffers.total_a[i] / N;  // what rounding left in the mean
      centre[i] = mu[i] + left;
      buffers.total_b[i] -= left * buffers.total_a[i];
      fit &= squares_fit<T>(buffers.total_b[i], N, eps);
    }
    if (!fit) wide_squares(s + at, centre, buffers.total_b, n);
    for (int64_t i = 0; i < n; i++) {
      r[i] = static_cast<C>(1 / std::sqrt(buffers.total_b[i] / N + eps));
      mu[i] = static_cast<C>(centre[i]);
    }
    if (buffers.far(n)) buffers.put_shift(n, [&](int64_t i) { return centre[i] - mu[i]; });
    for (int64_t k = 0; k < N; k++) write(k, s + at + k * S, y + at + k * S, buffers, n);
  }

  // The sums of squares in double, where the square of any float fits
  void wide_squares(const T* s, const double* centre, double* squares, int64_t n) const {
    std::fill_n(squares, n, 0.0);
    for (int64_t k = 0; k < slices.N; k++) {
      for (int64_t i = 0; i < n; i++) {
        const double d = load(s[k * slices.S + i]) - centre[i];
        squares[i] += d * d;
      }
    }
  }

  void write(int64_t k, const T* s, T* out, StripBuffers<C>& buffers, int64_t n) const {
    const C w = affine.weight ? affine.weight[k] : C(1), b = affine.bias ? affine.bias[k] : C(0);
    if (affine.activation == Activation::identity) return affine_strip(s, buffers.strip, w, b, out, n);
    affine_strip(s, buffers.strip, w, b, buffers.u, n);
    activate(affine.activation, affine.slope, buffers.u, n);
    store_tile(buffers.u, out, n);
  }
};

template <class T>
void forward(const StridedRowsForward<T>& a) {
  for_each(a.slices.B * a.slices.strips(),
           [&](int64_t k) { a.slices.strip(k, [&](int64_t at, int64_t m, int64_t n) { a.strip(at, m, n); }); });
}

}  // namespace normkernels
