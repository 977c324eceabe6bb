// NormProp's epilogue on the CPU, backward: du = dy * act'(u + bias) * scale and its sums over channels in one pass.
#pragma once

#include "cpu/normprop/forward.h"

namespace normkernels {

template <class T>
struct NormPropBackward {
  using C = compute_t<T>;
  const T *dy, *saved;  // saved: y if from_output, else u
  T* du;
  const Epilogue& e;
  bool from_output;
  Prelu<Raw<C>> k;  // all but bias: of prelu
  bool nontemporal;

  // bias and slope in the compute type, or null
  NormPropBackward(const Places& p, const T* dy, const T* saved, const C* bias, const C* slope, T* du,
                   const Epilogue& e, bool from_output)
      : dy(dy),
        saved(saved),
        du(du),
        e(e),
        from_output(from_output),
        nontemporal(sizeof(T) >= 4 && large<T>(p.elements(), 3)) {
    k.bias = p.spread<C>([&](int64_t c) { return bias ? bias[c] : C(0); });
    if (!e.prelu) return;
    // c1 dy/da = min(z, 0) + 1 / sqrt(2 pi) - y dc1/da with y = (prelu(z) - c2) / c1, sorted by powers of z
    const auto terms = [&](const auto& f) {
      return p.spread<C>([&](int64_t c) {
        const double a = slope[c];
        const auto [c1, c2] = prelu_moments(a);
        return f(a, c1, c2, (a + (1 - a) / std::numbers::pi) / (2 * c1 * c1)) / c1;
      });
    };
    k.up = terms([](double, double, double, double) { return 1.0; });
    k.down = terms([](double a, double, double, double) { return a; });
    k.of_one = terms([](double, double, double c2, double r) { return 1 / std::sqrt(2 * std::numbers::pi) + c2 * r; });
    k.of_up = terms([](double, double, double, double r) { return -r; });
    k.of_down = terms([](double a, double, double, double r) { return 1 - a * r; });
  }

  // du of a tile; adds to the sums of du and of what the slope gets
  template <class K>
  void tile(int64_t from, int64_t j, int64_t n, Pair<C*> sums) const {
    alignas(64) T out[kStep];
    T* const target = nontemporal ? out : du + from;
    const auto clamp = as_clamp(e);
    if (e.prelu) {
      const Prelu<K> of_tile = {at<K>(k.bias, j),   at<K>(k.up, j),    at<K>(k.down, j),
                                at<K>(k.of_one, j), at<K>(k.of_up, j), at<K>(k.of_down, j)};
      prelu_gradient(dy + from, saved + from, of_tile, target, sums, n);
    } else if (clamp && from_output) {
      const double outside = e.activation == Activation::leaky_relu ? e.leak * e.scale : 0;
      const Interval<C> interval = {C(e.low), C(e.high), C(e.scale / clamp->divisor), C(outside)};
      interval_gradient<K>(dy + from, saved + from, interval, target, sums, n);
    } else {
      alignas(64) C z[kStep], d[kStep];
      load_tile(dy + from, d, n);
      if (from_output) {
        affine_tile(saved + from, TileAffine<C>{C(e.shift), C(1 / e.scale), nullptr, nullptr}, z, n);
        times_derivative_of_output(e.activation, z, d, n);
      } else {
        add_bias<K>(saved + from, k.bias, j, z, n);
        times_derivative(e.activation, static_cast<C>(e.leak), z, d, n);
      }
      scaled_gradient<K>(d, C(e.scale), target, sums, n);
    }
    if (nontemporal) copy_nontemporal(out, du + from, n * sizeof(T));
  }
};

// du; and the sums over every channel of du and of what the slope gets
template <class T>
Scratch<Pair<double>> backward(const Places& p, const NormPropBackward<T>& a) {
  using C = compute_t<T>;
  const int64_t channels = p.grid.C, parts = p.parts();
  Scratch<Pair<double>> table(parts * channels);
  const auto add = [&](int64_t part, int64_t c, double of_du, double of_slope) {
    table[part * channels + c].a += of_du;
    table[part * channels + c].b += of_slope;
  };
  if (p.columns) {
    p.each_part([&](int64_t part, int64_t begin, int64_t end) {
      Scratch<C> sums(2 * p.columns);
      Scratch<double> totals(sums.size());
      for (int64_t at = begin; at < end; at += kBlock * p.columns) {
        for_each_piece(at, std::min(end, at + kBlock * p.columns), p.columns, [&](int64_t from, int64_t j, int64_t n) {
          a.template tile<const C*>(from, j, n, {sums.data() + j, sums.data() + p.columns + j});
        });
        drain(sums.data(), totals.data(), sums.size());
      }
      p.lines.each_column(p.columns, [&](int64_t j, int64_t c) { add(part, c, totals[j], totals[p.columns + j]); });
    });
  } else {
    p.each_segment([&](int64_t part, int64_t c, int64_t begin, int64_t end) {
      for_each_step(begin, end, [&](int64_t from, int64_t n) {
        Pair<C> sums = {};
        a.template tile<Same<C>>(from, c, n, {&sums.a, &sums.b});
        add(part, c, sums.a, sums.b);
      });
    });
  }
  for (int64_t part = 1; part < parts; part++)
    for (int64_t c = 0; c < channels; c++) add(0, c, table[part * channels + c].a, table[part * channels + c].b);
  table.resize(channels);
  return table;
}

}  // namespace normkernels
