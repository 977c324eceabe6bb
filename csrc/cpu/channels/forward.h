// The channel family on the CPU, forward: statistics that pool planes (one channel of one image), whatever the layout.
//
// Every member is two sweeps with a rule between them: moments -> mean and var -> y, and sums -> means -> dx. Planes
// are pooled in an order fixed by the shape, so the number of threads does not change a bit.
#pragma once

#include <cmath>
#include <functional>
#include <limits>

#include "cpu/base/activated.h"
#include "cpu/base/gate.h"
#include "cpu/base/tiles.h"
#include "cpu/base/work.h"
#include "cpu/channels/grid.h"
#include "cpu/channels/kept_statistics.h"
#include "cpu/channels/tiles.h"

namespace normkernels {

// Both directions: what is normalised, and by what.
template <class T>
struct Channels {
  using C = compute_t<T>;
  Grid grid;
  const T *x, *skip;  // skip: or null
  Affine<C> affine;
  C *mean, *var, *rstd;  // (B, G); rstd: scratch, filled by find_rstd or keep
  double eps;
  C* shift = nullptr;    // scratch as rstd, or null for zeros: xhat = (x - mean) * rstd + shift, for what mean lost
  int64_t together = 1;  // images of the tensor that are one of the grid's
  const T* opener = nullptr;  // or what the activation is given instead of u, which it multiplies: a call's gate
  int64_t ahead = 0;          // elements: how far ahead memory is asked for, if not just the next

  // For statistics from first on, with mean and var given
  void find_rstd(int64_t first, int64_t count) const {
    rstd_tile(var + first, eps, rstd + first, count);
    std::fill_n(shift + first, count, C(0));
  }

  bool plain() const { return affine.activation == Activation::identity && !opener; }
  Gate gate() const {
    return opener                                        ? Gate::none
           : affine.activation == Activation::relu       ? Gate::relu
           : affine.activation == Activation::leaky_relu ? Gate::leaky_relu
                                                         : Gate::none;
  }
  bool gated() const { return gate() != Gate::none; }

  C weight(int64_t c) const { return affine.weight ? affine.weight[c] : C(1); }
  C bias(int64_t c) const { return affine.bias ? affine.bias[c] : C(0); }
  Scale<Same<C>> scale(int64_t statistic, int64_t c) const {
    const C added = shift ? shift[statistic] * weight(c) + bias(c) : bias(c);
    return {{mean[statistic]}, {rstd[statistic] * weight(c)}, {added}, gate(), affine.slope};
  }

  // Of one group of an image of one position, from channel c on
  TileAffine<C> row(int64_t statistic, int64_t c) const {
    return affine.at({mean[statistic], rstd[statistic], shift[statistic]}, c);
  }

  // So many groups from a statistic on, and their channels from c on
  Groups<C> groups(int64_t statistic, int64_t count, int64_t c) const {
    const auto from = [=](const C* of_channels) { return of_channels ? of_channels + c : nullptr; };
    return {count,
            grid.channels(),
            mean + statistic,
            rstd + statistic,
            shift ? shift + statistic : nullptr,
            from(affine.weight),
            from(affine.bias)};
  }

  // u from element at on, before the activation
  template <class K, class Out>
  void scaled(int64_t at, const Scale<K>& k, Out* u, int64_t n, int64_t results = 0) const {
    scale_tile(x + at, skip ? skip + at : nullptr, k, u, n, results);
  }

  // From u to y
  void complete(int64_t at, C* u, int64_t n) const {
    const int64_t later = at + std::max(ahead, n);
    const Coming coming = Coming::of(x + later, skip ? skip + later : nullptr);
    if (!opener) return activate(affine.activation, affine.slope, u, n, coming);
    gate_tile(affine.activation, affine.slope, opener + at, u, n);
  }

  // How many elements are written at once at most: calls cost, but u needs room.
  int64_t most() const { return plain() || gated() ? kTile : kStep; }

  // out = act((x - mean) * scale + shift + skip), or that times act(opener), from element at on
  template <class K>
  void write(int64_t at, const Scale<K>& k, T* out, int64_t n, bool nontemporal) const {
    // Arithmetic, not memory, is the limit in 16 bits.
    if (sizeof(T) == 2 && gated()) nontemporal = false;
    if ((plain() || gated()) && nontemporal) return scale_nontemporal(x + at, skip ? skip + at : nullptr, k, out, n);
    if (plain() || gated()) return scaled(at, k, out, n, grid.N * grid.C * grid.S);
    if (!nontemporal && sizeof(T) > 2) prefetch_results(out, n, grid.N * grid.C * grid.S);
    if constexpr (std::is_same_v<T, float>) {
      if (!opener && is_in_loops(affine.activation)) {
        prefetch_tile(x + at + std::max(ahead, n), n);
        return scale_activated(x + at, skip ? skip + at : nullptr, k, affine.activation, out, n, nontemporal);
      }
    }
    alignas(64) C u[kStep];
    scaled(at, k, u, n);
    complete(at, u, n);
    nontemporal ? store_nontemporal(u, out, n) : store_tile(u, out, n);
  }
};

// The mean of each channel of some groups
template <class C>
void channel_means(const Groups<C>& groups, C* mean) {
  if (groups.D == 1) std::copy_n(groups.mean, groups.count, mean);
  for (int64_t k = 0; k < groups.count && groups.D > 1; k++) std::fill_n(mean + k * groups.D, groups.D, groups.mean[k]);
}

// The coefficients of the channels of some groups, a value for each.
template <class C>
struct ChannelScale {
  Raw<C> mean, scale, shift;
  Gate gate;
  C slope;

  // all: else only the means, for sums of du that nothing has to be computed for
  template <class T>
  ChannelScale(const Channels<T>& of, const Groups<C>& groups, bool all = true)
      : mean(groups.count * groups.D),
        scale(all ? mean.size() : 0),
        shift(scale.size()),
        gate(of.gate()),
        slope(of.affine.slope) {
    if (all) {
      scale_channels(groups, mean.data(), scale.data(), shift.data());
    } else {
      channel_means(groups, mean.data());
    }
  }
  Scale<const C*> at(int64_t j) const { return {mean.data() + j, scale.data() + j, shift.data() + j, gate, slope}; }
};

template <class T>
struct Forward {
  using C = compute_t<T>;
  Channels<T> of;
  T* y;                  // null: statistics only
  bool training = true;  // mean and var are those of x, and written; else they are given
  // A normaliser's own rule for statistics [first, first + count) of x: it may replace mean, rstd, weight and bias.
  std::function<void(int64_t first, int64_t count)> rule = nullptr;
  bool again = false;  // mean and var are there, but rounded: rstd and shift are wanted

  // Of so many statistics from one on, what is kept
  Kept<C> kept(int64_t statistic) const {
    return {of.mean + statistic,
            of.var + statistic,
            of.rstd + statistic,
            of.shift ? of.shift + statistic : nullptr,
            of.eps,
            again};
  }
  void keep(int64_t statistic, double mean, double var) const {
    kept(statistic).with_put([=](const auto& put) { put(0, mean, var); });
  }
};

constexpr int64_t kFirst = 8;  // values whose mean the sums are taken about: one alone is often too far off

// mean and var of statistics from first on, from sums(about): of each the sums of x - about and of its square, taken
// again about the mean where about was too far off. Whether C held the squares.
template <class T, class F>
bool keep_moments(const Forward<T>& a, int64_t first, Scratch<compute_t<T>>& about, const F& sums) {
  const double count = a.of.grid.count();
  auto found = sums(about);
  if (move_about(found.data(), count, about.data(), about.size())) found = sums(about);
  return keep_sums(found.data(), count, about.data(), a.kept(first), about.size());
}

// f(i) for 0 <= i < n, on this thread or on all
template <class F>
void each(bool parallel, int64_t n, const F& f) {
  if (parallel) return for_each(n, f);
  for (int64_t i = 0; i < n; i++) f(i);
}

// Parts of the work that need nothing of each other: one for each thread if there are enough, else all threads on each,
// where a part can be shared and is worth a meeting of the threads.
// f(part, parallel), with parallel telling whether to share the part among the threads.
template <class F>
void share(int64_t parts, int64_t elements, bool shareable, const F& f) {
  const bool inside = shareable && parts < torch::stable::get_num_threads() && elements > 32768 * parts * parts;
  if (inside) {
    for (int64_t i = 0; i < parts; i++) f(i, true);
  } else {
    parallel_for(0, parts, grain(elements / std::max<int64_t>(parts, 1)), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) f(i, false);
    });
  }
}

// f(offset, its column, n) for elements [begin, end) from the start of a line on, some columns at a time
template <class F>
void for_each_piece(int64_t begin, int64_t end, int64_t columns, const F& f) {
  for (int64_t line = begin; line < end; line += columns)
    for (int64_t j = 0; j < columns && line + j < end; j += kStep)
      f(line + j, j, std::min({kStep, columns - j, end - line - j}));
}

// The same for an image
template <class F>
void each_piece(bool parallel, const Grid& g, int64_t columns, const F& f) {
  const int64_t elements = g.S * g.C, many = std::clamp<int64_t>(elements / kParts, kPart, kSegment);
  const int64_t part = std::max<int64_t>(1, many / columns) * columns;
  each(parallel, (elements + part - 1) / part, [&](int64_t s) {
    for_each_piece(s * part, std::min(elements, (s + 1) * part), columns, f);
    nontemporal_fence();
  });
}

}  // namespace normkernels
