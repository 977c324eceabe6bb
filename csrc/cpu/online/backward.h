// Online Normalization backward: a block's sums, the control process over its samples, its dx.
#pragma once

#include "cpu/channels/channels_last_backward.h"
#include "cpu/channels/planes_backward.h"
#include "cpu/online/forward.h"

namespace normkernels {

template <class T>
struct OnlineBackward {
  using C = compute_t<T>;
  Samples<T> samples;
  Backward<T> sweep;  // du = dy * act'(u) where nothing is clamped, and dx
  Control control;    // (C,) each
  C p;                // 1 - alpha
  bool stable;

  bool plain() const { return samples.of.plain() && !samples.clamped(); }

  // f with G: du, or what the clamp lets through of it, for which du is left in dskip.
  template <class K, class F>
  void with_du(int64_t at, const Scale<K>& k, int64_t n, C* kept, const F& f) const {
    if (!samples.clamped()) return sweep.with_du(at, k, n, kept, f);
    alignas(64) C z[kStep], u[kStep], du[kStep];
    samples.clamped_tile(at, k, z, n);
    clamp_tile(z, samples.clamp, samples.of.skip ? samples.of.skip + at : nullptr, u, n);
    load_tile(sweep.dy + at, du, n);
    times_derivative(samples.of.affine.activation, samples.of.affine.slope, u, du, n);
    if (sweep.dskip) write_du(static_cast<const C*>(du), sweep.dskip + at, n);
    mask_tile(z, samples.clamp, du, n);
    f(static_cast<const C*>(du));
  }

  template <class K, class B>
  void write(int64_t at, const Scale<K>& k, const B& blend, int64_t n, C* kept, bool nontemporal) const {
    if (!samples.clamped())
      return sweep.with_du_again(at, k, n, kept, [&](const auto* du) { sweep.write(du, at, blend, n, nontemporal); });
    with_du(at, k, n, nullptr, [&](const auto* G) {
      nontemporal ? blend_nontemporal(G, samples.of.x + at, blend, sweep.dx + at, n)
                  : blend_tile(G, samples.of.x + at, blend, sweep.dx + at, n);
    });
  }
};

// dx of a part of a row, from G
template <class T>
void write_row(const OnlineBackward<T>& a, int64_t at, const compute_t<T>* G, const Coefficients<compute_t<T>>& k,
               int64_t n) {
  const Blend<const compute_t<T>*> blend = {a.samples.of.mean + at, k.a, k.b, k.c};
  if (!a.samples.clamped()) return a.sweep.write(G, at, blend, n, a.samples.nontemporal());
  blend_tile(G, a.samples.of.x + at, blend, a.sweep.dx + at, n);
}

// du in the compute type
template <class T, class D>
void widen_du(const D* du, compute_t<T>* g, int64_t n) {
  if constexpr (std::is_same_v<D, compute_t<T>>) {
    std::copy_n(du, n, g);
  } else {
    load_tile(du, g, n);
  }
}

// Means over each sample of a block of G and of G * xhat, (samples, C); where a sample is one value, G and nothing.
template <class T>
void sum_block(const OnlineBackward<T>& a, bool parallel, int64_t first, int64_t samples, compute_t<T>* kept,
               compute_t<T>* g, compute_t<T>* gx) {
  using C = compute_t<T>;
  const Grid& z = a.samples.of.grid;
  const auto place = [&](int64_t at) { return kept ? kept + at - first * a.samples.values() : nullptr; };
  const auto record = [&](int64_t n, int64_t c, double sum_g, double sum_gx) {
    g[(n - first) * z.C + c] = static_cast<C>(sum_g / z.S);
    gx[(n - first) * z.C + c] = static_cast<C>(sum_gx / z.S * a.samples.of.rstd[n * z.C + c]);
  };
  if (a.samples.single()) {
    return each_row_tile(a.samples, parallel, first, samples, [&](int64_t at, const auto& k, int64_t m) {
      a.with_du(at, k, m, nullptr, [&](const auto* du) { widen_du<T>(du, g + at - first * z.C, m); });
    });
  }
  if (a.samples.last) {
    const Lines lines(z, 1);
    return share(samples, samples * a.samples.values(), true, [&](int64_t i, bool inside) {
      const auto sums =
          channel_sums(a.sweep, a, lines, first + i, column_scale(a.samples, lines, wide(lines), first + i),
                       place((first + i) * a.samples.values()), inside);
      for (int64_t c = 0; c < z.C; c++) record(first + i, c, sums[c], sums[z.C + c]);
    });
  }
  Scratch<Pair<double>> sums(samples * z.C);
  each_plane_tile(a.samples, parallel, first, samples, {}, [&](int64_t at, const auto& k, const auto&, int64_t m) {
    Pair<double>& total = sums[at / z.S - first * z.C];
    a.with_du(at, k, m, place(at), [&](const auto* du) {
      const auto part = sums_about(du, a.samples.of.x + at, k.mean.value, m);
      total.a += part.a;
      total.b += part.b;
    });
  });
  for (int64_t i = 0; i < samples * z.C; i++) record(first + i / z.C, i % z.C, sums[i].a, sums[i].b);
}

// The control process over a block's samples, from the means of sum_block.
template <class T>
void control_block(const OnlineBackward<T>& a, bool parallel, int64_t first, int64_t samples, const compute_t<T>* g,
                   const compute_t<T>* gx, const Coefficients<compute_t<T>>& k) {
  using C = compute_t<T>;
  const int64_t width = a.samples.of.grid.C;
  const auto products = [=](int64_t row) { return gx ? gx + row : nullptr; };
  Scratch<C> kappa(samples);
  if (a.samples.gain) {
    kappa = channel_means<C>(parallel, width, samples, [&](int64_t i, int64_t c, int64_t n) {
      const int64_t row = i * width + c;
      return guard_tile(a.samples.met(first + i, c), a.samples.of.x + first * width + row, g + row, products(row), n);
    });
    for (int64_t i = 0; i < samples; i++) kappa[i] *= a.samples.gain[first + i];
  }
  each_range(parallel, width, [&](int64_t c, int64_t n) {
    const Control to = {a.control.epsilon_y + c, a.control.epsilon_1 + c, a.control.dweight + c, a.control.dbias + c};
    for (int64_t i = 0; i < samples; i++) {
      const int64_t row = i * width + c, at = first * width + row;
      const SampleTerms<C> terms = {a.samples.gain_of(first + i), kappa[i], a.p, a.stable,
                                    static_cast<double>(a.samples.of.grid.S)};
      alignas(64) C own[3][kRange];
      const Coefficients<C> of = a.samples.single() ? Coefficients<C>{own[0], own[1], own[2]} : k.at(row);
      control_tile(a.samples.met(first + i, c), a.samples.of.x + at, g + row, products(row), terms, to, of.a, of.b,
                   of.c, n);
      if (a.samples.single()) write_row(a, at, g + row, of, n);
    }
  });
}

template <class T>
void online_backward(const OnlineBackward<T>& a) {
  using C = compute_t<T>;
  const int64_t block = a.samples.block(a.samples.single() ? 3 * (sizeof(T) + sizeof(C)) : 2 * sizeof(T)),
                entries = block * a.samples.of.grid.C;
  const bool parallel = block * a.samples.values() > 2 * kPiece, nontemporal = a.samples.nontemporal();
  const Room<C> kept = a.samples.single() ? Room<C>(0) : a.sweep.scratch(block * a.samples.values());
  Scratch<C> g(entries), products(a.samples.single() ? 0 : entries), coefficients(a.samples.single() ? 0 : 3 * entries);
  C *gx = a.samples.single() ? nullptr : products.data(), *of = coefficients.data();
  const Coefficients<C> k = {of, of + entries, of + 2 * entries};
  for (int64_t first = 0; first < a.samples.of.grid.N; first += block) {
    const int64_t samples = std::min(block, a.samples.of.grid.N - first);
    sum_block(a, parallel, first, samples, kept.get(), g.data(), gx);
    control_block(a, parallel, first, samples, g.data(), gx, k);
    if (a.samples.single()) continue;
    each_tile(a.samples, parallel, first, samples, k, [&](int64_t at, const auto& scale, const auto& blend, int64_t n) {
      a.write(at, scale, blend, n, kept.at(at - first * a.samples.values()), nontemporal);
    });
  }
}

}  // namespace normkernels
