// NormProp's epilogue on the CPU, forward: y = act(u + bias) * scale + shift in one pass.
#pragma once

#include <limits>
#include <numbers>
#include <optional>

#include "cpu/channels/channels_last.h"
#include "cpu/normprop/tiles.h"

namespace normkernels {

// What follows the product. y stays in [low, high] where act lies strictly between the kinks.
struct Epilogue {
  bool prelu = false;  // with a slope for each channel, from which scale and shift follow
  Activation activation = Activation::identity;
  double leak, scale, shift, kink_low = 0, kink_high = 0, low, high;
};

// act(z) = clamp(z + offset, floor, ceiling) / divisor, times down where that is negative
struct Clamp {
  double offset, floor, ceiling, divisor, down;
};
inline std::optional<Clamp> as_clamp(const Epilogue& e) {
  constexpr double far = std::numeric_limits<double>::infinity();
  switch (e.activation) {
    case Activation::identity:
      return Clamp{0, -far, far, 1, 1};
    case Activation::leaky_relu:
      return Clamp{0, -far, far, 1, e.leak};
    case Activation::relu:
      return Clamp{0, 0, far, 1, 1};
    case Activation::relu6:
      return Clamp{0, 0, 6, 1, 1};
    case Activation::hardtanh:
      return Clamp{0, -1, 1, 1, 1};
    case Activation::hardsigmoid:
      return Clamp{3, 0, 6, 6, 1};
    default:
      return {};
  }
}

// c1 and c2 of max(z, 0) + slope min(z, 0)
inline Pair<double> prelu_moments(double slope) {
  const double away = 1 - slope;
  return {std::sqrt(((1 + slope * slope) - away * away / std::numbers::pi) / 2),
          away / std::sqrt(2 * std::numbers::pi)};
}

// Where channels lie: in planes; or, last or in tiny planes, each in columns of lines. A tensor without coefficients
// is one plane.
struct Places {
  Grid grid;
  int64_t run;
  Lines lines;
  int64_t columns;  // 0: planes

  Places(const Grid& g, bool last, bool coefficients)
      : grid(coefficients ? g : Grid{1, 1, g.N * g.C * g.S, 1, 1}),
        run(!coefficients      ? 0
            : last || g.S == 1 ? 1
                               : tiny_planes(g, last)),
        lines(one_image(grid), std::max<int64_t>(run, 1)),
        columns(run ? wide(lines) : 0) {}

  int64_t elements() const { return grid.N * grid.C * grid.S; }
  // A plane's segments, or parts of some lines at least: with each of them a channel's sums have a term.
  int64_t parts() const {
    if (!columns) return grid.N * segments(grid.S);
    return std::clamp<int64_t>(elements() / std::max(kSegment, kBlock / 2 * columns), 1, 64);
  }

  // What f says of each channel, for each channel or column
  template <class C, class F>
  Raw<C> spread(const F& f) const {
    Raw<C> values;
    for (int64_t c = 0; c < grid.C; c++) values.push_back(static_cast<C>(f(c)));
    return columns ? of_columns(lines, columns, values) : values;
  }

  // f(part, channel, begin, end) for every segment of every plane
  template <class F>
  void each_segment(const F& f) const {
    const int64_t C = grid.C, of_plane = segments(grid.S);
    parallel_for(0, C * parts(), grain(std::min(grid.S, kSegment)), [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; i++) {
        const int64_t plane = i / of_plane, s = i % of_plane, begin = plane * grid.S + s * kSegment;
        f(plane / C * of_plane + s, plane % C, begin, std::min((plane + 1) * grid.S, begin + kSegment));
      }
      nontemporal_fence();
    });
  }

  // f(part, begin, end) for every part of the lines
  template <class F>
  void each_part(const F& f) const {
    const int64_t count = (elements() + columns - 1) / columns;
    parallel_for(0, parts(), grain(elements() / parts()), [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; i++)
        f(i, i * count / parts() * columns, std::min(elements(), (i + 1) * count / parts() * columns));
      nontemporal_fence();
    });
  }
};

template <class K, class C>
K at(const Raw<C>& values, int64_t j) {
  if constexpr (std::is_same_v<K, const C*>) {
    return values.data() + j;
  } else {
    return {values[j]};
  }
}

// u + bias from column j on
template <class K, class T>
void add_bias(const T* u, const Raw<compute_t<T>>& bias, int64_t j, compute_t<T>* z, int64_t n) {
  using C = compute_t<T>;
  if constexpr (std::is_same_v<K, const C*>) {
    affine_tile(u, TileAffine<C>{0, 1, nullptr, bias.data() + j}, z, n);
  } else {
    affine_tile(u, TileAffine<C>{-bias[j], 1, nullptr, nullptr}, z, n);
  }
}

template <class T>
struct NormPropForward {
  using C = compute_t<T>;
  const T* u;
  T* y;  // may be u
  const Epilogue& e;
  std::optional<Clamp> clamp;
  Raw<C> bias, up, down, shift;  // up, down and shift: of prelu
  bool nontemporal;

  // bias and slope in the compute type, or null
  NormPropForward(const Places& p, const T* u, const C* given, const C* slope, T* y, const Epilogue& e)
      : u(u), y(y), e(e), clamp(as_clamp(e)), nontemporal(sizeof(T) >= 4 && large<T>(p.elements()) && u != y) {
    bias = p.spread<C>([&](int64_t c) { return (given ? given[c] : 0.0) + (clamp ? clamp->offset : 0); });
    if (!e.prelu) return;
    up = p.spread<C>([&](int64_t c) { return 1 / prelu_moments(slope[c]).a; });
    down = p.spread<C>([&](int64_t c) { return slope[c] / prelu_moments(slope[c]).a; });
    shift = p.spread<C>([&](int64_t c) { return -prelu_moments(slope[c]).b / prelu_moments(slope[c]).a; });
  }

  template <class K>
  void tile(int64_t at_u, int64_t j, int64_t n) const {
    alignas(64) T out[kStep];
    T* const target = nontemporal ? out : y + at_u;
    if (clamp) {
      const double divisor = clamp->divisor, scale = e.scale / divisor;
      const Bounds<C> bounds = {C(clamp->floor),          C(clamp->ceiling), C(e.kink_low * divisor),
                                C(e.kink_high * divisor), C(e.low),          C(e.high)};
      if (e.prelu) {
        bend_tile(u + at_u, Bend<K, K>{at<K>(bias, j), at<K>(up, j), at<K>(down, j), at<K>(shift, j)}, bounds, target,
                  n);
      } else {
        const Bend<K, Same<C>> bend = {at<K>(bias, j), {C(scale)}, {C(scale * clamp->down)}, {C(e.shift)}};
        bend_tile(u + at_u, bend, bounds, target, n);
      }
    } else {
      alignas(64) C z[kStep];
      add_bias<K>(u + at_u, bias, j, z, n);
      activate(e.activation, static_cast<C>(e.leak), z, n);
      affine_tile(z, TileAffine<C>{C(-e.shift / e.scale), C(e.scale), nullptr, nullptr}, z, n);
      store_tile(z, target, n);
    }
    if (nontemporal) copy_nontemporal(out, y + at_u, n * sizeof(T));
  }
};

template <class T>
void forward(const Places& p, const NormPropForward<T>& a) {
  using C = compute_t<T>;
  if (p.columns) {
    p.each_part([&](int64_t, int64_t begin, int64_t end) {
      for_each_piece(begin, end, p.columns,
                     [&](int64_t at, int64_t j, int64_t n) { a.template tile<const C*>(at, j, n); });
    });
  } else {
    p.each_segment([&](int64_t, int64_t c, int64_t begin, int64_t end) {
      for_each_step(begin, end, [&](int64_t at, int64_t n) { a.template tile<Same<C>>(at, c, n); });
    });
  }
}

}  // namespace normkernels
