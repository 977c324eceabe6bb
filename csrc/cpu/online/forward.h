// Online Normalization forward: a block's moments, the scan over its samples, its y.
#pragma once

#include "cpu/online/samples.h"

namespace normkernels {

template <class T>
struct OnlineForward : Samples<T> {
  T* y;
  const double* rates;             // (N,), the weight of each sample; null: the statistics are constants
  double *state_mean, *state_var;  // (C,)
  double ls_eps;
};

// The moments of a block's samples, (samples, C)
template <class T>
void measure_block(const OnlineForward<T>& a, bool parallel, int64_t first, int64_t samples, compute_t<T>* mean,
                   compute_t<T>* var) {
  using C = compute_t<T>;
  const Grid& g = a.grid;
  if (!a.last) {
    return each_plane(parallel, g, first, samples, [&](int64_t n, int64_t c) {
      const Moments m = run_moments(a.x + g.plane(n, c), g.S, a.eps);
      mean[(n - first) * g.C + c] = static_cast<C>(m.mean);
      var[(n - first) * g.C + c] = static_cast<C>(m.m2 / m.count);
    });
  }
  const Lines lines(g, 1);
  Forward<T> part{a, nullptr, true};
  part.x = a.x + first * a.values(), part.mean = mean, part.var = var;
  share(samples, samples * a.values(), [&](int64_t n, bool inside) { measure(part, lines, n, inside); });
}

// The scan over a block's samples: what each of them met, and its gain.
template <class T>
void scan_block(const OnlineForward<T>& a, bool parallel, int64_t first, int64_t samples, const compute_t<T>* mean,
                const compute_t<T>* var) {
  using C = compute_t<T>;
  const auto squares = channel_means<C>(parallel, a.grid.C, samples, [&](int64_t k, int64_t c, int64_t m) {
    const int64_t n = first + k, row = k * a.grid.C + c;
    const double rate = a.rates ? a.rates[n] : 0;
    double *state_mean = a.state_mean + c, *state_var = a.state_var + c;
    if (a.xhat) return meet_tile(mean + row, var + row, rate, a.eps, state_mean, state_var, a.met(n, c), m);
    const C* none = nullptr;
    if (!a.single()) return meet_tile(mean, none, rate, a.eps, state_mean, state_var, a.met(n, c), m);  // nobody asks
    return meet_tile(a.x + n * a.grid.C + c, none, rate, a.eps, state_mean, state_var, a.met(n, c), m);
  });
  for (int64_t k = 0; a.gain && k < samples; k++)
    a.gain[first + k] = static_cast<C>(1 / std::sqrt(static_cast<double>(squares[k]) + a.ls_eps));
}

template <class T, class K>
void write_clamped(const OnlineForward<T>& a, int64_t at, const Scale<K>& k, int64_t n) {
  alignas(64) compute_t<T> u[kStep];
  a.clamped_tile(at, k, u, n);
  clamp_tile(u, a.clamp, a.skip ? a.skip + at : nullptr, u, n);
  activate(a.affine.activation, a.affine.slope, u, n);
  store_tile(u, a.y + at, n);
}

template <class T>
void online_forward(const OnlineForward<T>& a) {
  using C = compute_t<T>;
  const int64_t block = a.block(a.single() ? 2 * (sizeof(T) + sizeof(C)) : sizeof(T)),
                entries = a.single() ? 0 : std::max(block * a.grid.C, kRange);
  const bool parallel = block * a.values() > 2 * kPiece, past = a.past();
  Scratch<C> mean(entries), var(entries);
  for (int64_t first = 0; first < a.grid.N; first += block) {
    const int64_t samples = std::min(block, a.grid.N - first);
    if (a.xhat) measure_block(a, parallel, first, samples, mean.data(), var.data());
    scan_block(a, parallel, first, samples, mean.data(), var.data());
    const auto write = [&](int64_t at, const auto& scale, int64_t n) {
      if (a.clamped()) return write_clamped(a, at, scale, n);
      a.write(a.x + at, a.skip ? a.skip + at : nullptr, scale, a.y + at, n, past);
    };
    if (a.single()) {
      each_row_tile(a, parallel, first, samples, write);
    } else {
      each_tile(a, parallel, first, samples, {},
                [&](int64_t at, const auto& scale, const auto&, int64_t n) { write(at, scale, n); });
    }
  }
}

}  // namespace normkernels
