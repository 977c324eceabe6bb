// Online Normalization forward: a block's moments, the walk over its samples, its y.
#pragma once

#include "cpu/online/samples.h"

namespace normkernels {

template <class T>
struct OnlineForward {
  Samples<T> samples;
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
  const Grid& g = a.samples.of.grid;
  if (!a.samples.last) {
    return each_plane(parallel, g, first, samples, [&](int64_t n, int64_t c) {
      const Moments m = run_moments(a.samples.of.x + g.plane(n, c), g.S, a.samples.of.eps);
      mean[(n - first) * g.C + c] = static_cast<C>(m.mean);
      var[(n - first) * g.C + c] = static_cast<C>(m.m2 / m.count);
    });
  }
  const Lines lines(g, 1);
  Forward<T> part{.of = a.samples.of, .y = nullptr};
  part.of.x = a.samples.of.x + first * a.samples.values();
  part.of.mean = mean;
  part.of.var = var;
  share(samples, samples * a.samples.values(), true, [&](int64_t n, bool inside) { measure(part, lines, n, inside); });
}

// The walk over a block's samples: what each of them met, and its gain.
template <class T>
void meet_block(const OnlineForward<T>& a, bool parallel, int64_t first, int64_t samples, const compute_t<T>* mean,
                const compute_t<T>* var) {
  using C = compute_t<T>;
  const auto squares = channel_means<C>(parallel, a.samples.of.grid.C, samples, [&](int64_t k, int64_t c, int64_t m) {
    const int64_t n = first + k, row = k * a.samples.of.grid.C + c;
    const double rate = a.rates ? a.rates[n] : 0;
    double *state_mean = a.state_mean + c, *state_var = a.state_var + c;
    if (a.samples.xhat)
      return meet_tile(mean + row, var + row, rate, a.samples.of.eps, state_mean, state_var, a.samples.met(n, c), m);
    const C* none = nullptr;
    // The statistics are constants: what a sample's means are does not matter, and any memory stands in for them.
    if (!a.samples.single())
      return meet_tile(mean, none, rate, a.samples.of.eps, state_mean, state_var, a.samples.met(n, c), m);
    return meet_tile(a.samples.of.x + n * a.samples.of.grid.C + c, none, rate, a.samples.of.eps, state_mean, state_var,
                     a.samples.met(n, c), m);
  });
  for (int64_t k = 0; a.samples.gain && k < samples; k++)
    a.samples.gain[first + k] = static_cast<C>(1 / std::sqrt(static_cast<double>(squares[k]) + a.ls_eps));
}

template <class T, class K>
void write_clamped(const OnlineForward<T>& a, int64_t at, const Scale<K>& k, int64_t n) {
  alignas(64) compute_t<T> u[kStep];
  a.samples.clamped_tile(at, k, u, n);
  clamp_tile(u, a.samples.clamp, a.samples.of.skip ? a.samples.of.skip + at : nullptr, u, n);
  activate(a.samples.of.affine.activation, a.samples.of.affine.slope, u, n);
  store_tile(u, a.y + at, n);
}

template <class T>
void online_forward(const OnlineForward<T>& a) {
  using C = compute_t<T>;
  const int64_t block = a.samples.block(a.samples.single() ? 2 * (sizeof(T) + sizeof(C)) : sizeof(T)),
                entries = a.samples.single() ? 0 : std::max(block * a.samples.of.grid.C, kRange);
  const bool parallel = block * a.samples.values() > 2 * kPiece, nontemporal = a.samples.nontemporal();
  Scratch<C> mean(entries), var(entries);
  for (int64_t first = 0; first < a.samples.of.grid.N; first += block) {
    const int64_t samples = std::min(block, a.samples.of.grid.N - first);
    if (a.samples.xhat) measure_block(a, parallel, first, samples, mean.data(), var.data());
    meet_block(a, parallel, first, samples, mean.data(), var.data());
    const auto write = [&](int64_t at, const auto& scale, int64_t n) {
      if (a.samples.clamped()) return write_clamped(a, at, scale, n);
      a.samples.of.write(at, scale, a.y + at, n, nontemporal);
    };
    if (a.samples.single()) {
      each_row_tile(a.samples, parallel, first, samples, write);
    } else {
      each_tile(a.samples, parallel, first, samples, {},
                [&](int64_t at, const auto& scale, const auto&, int64_t n) { write(at, scale, n); });
    }
  }
}

}  // namespace normkernels
