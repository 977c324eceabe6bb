// The channel family on the CPU, forward: statistics that pool planes (one channel of one image), whatever the layout.
//
// Every member is two sweeps with a rule between them: moments -> mean and var -> y, and sums -> means -> dx. Planes
// are pooled in an order fixed by the shape, so the number of threads does not change a bit.
#pragma once

#include <cmath>
#include <functional>
#include <limits>

#include "cpu/base/tiles.h"
#include "cpu/base/work.h"
#include "cpu/channels/tiles.h"

namespace normkernels {

// N images of C channels of S positions; statistics (B, G): each pools N / B images and C / G adjacent channels.
struct Grid {
  int64_t N, C, S, B, G;

  int64_t images() const { return N / B; }
  int64_t channels() const { return C / G; }
  int64_t plane(int64_t n, int64_t c) const { return (n * C + c) * S; }
  double count() const { return static_cast<double>(images() * channels() * S); }
};

// Both directions: what is normalised, and by what.
template <class T>
struct Channels {
  using C = compute_t<T>;
  Grid grid;
  const T *x, *skip;  // skip: or null
  Affine<C> affine;
  C *mean, *var, *rstd;  // (B, G); rstd: scratch, filled by find_rstd or keep
  double eps;
  C* shift = nullptr;  // scratch as rstd, or null for zeros: xhat = (x - mean) * rstd + shift, for what mean lost

  // For statistics from first on, with mean and var given
  void find_rstd(int64_t first, int64_t count) const {
    rstd_tile(var + first, eps, rstd + first, count);
    std::fill_n(shift + first, count, C(0));
  }
  C shift_of(int64_t statistic) const { return shift ? shift[statistic] : C(0); }

  bool plain() const { return affine.activation == Activation::identity; }
  Gate gate() const {
    return affine.activation == Activation::relu         ? Gate::relu
           : affine.activation == Activation::leaky_relu ? Gate::leaky_relu
                                                         : Gate::none;
  }
  bool gated() const { return gate() != Gate::none; }

  C weight(int64_t c) const { return affine.weight ? affine.weight[c] : C(1); }
  C bias(int64_t c) const { return affine.bias ? affine.bias[c] : C(0); }
  C added(int64_t statistic, int64_t c) const { return bias(c) + shift_of(statistic) * weight(c); }
  Scale<Same<C>> scale(int64_t statistic, int64_t c) const {
    return {{mean[statistic]}, {rstd[statistic] * weight(c)}, {added(statistic, c)}, gate(), affine.slope};
  }

  // out = act((x - mean) * scale + shift + skip)
  template <class K>
  void write(const T* x_tile, const T* skip_tile, const Scale<K>& k, T* out, int64_t n, bool nontemporal) const {
    if (sizeof(T) == 2 && gated()) nontemporal = false;  // arithmetic, not memory, is the limit there
    if (plain() || gated())
      return nontemporal ? scale_nontemporal(x_tile, skip_tile, k, out, n) : scale_tile(x_tile, skip_tile, k, out, n);
    alignas(64) C u[kStep];
    scale_tile(x_tile, skip_tile, k, u, n);
    activate(affine.activation, affine.slope, u, n);
    nontemporal ? store_nontemporal(u, out, n) : store_tile(u, out, n);
  }
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

  // A variance beyond C is kept as a number from which a running one recovers.
  void keep(int64_t statistic, double mean, double var) const {
    if (!again) {
      of.mean[statistic] = static_cast<C>(mean);
      of.var[statistic] = static_cast<C>(std::min(var, static_cast<double>(std::numeric_limits<C>::max()) / 2));
    }
    if (!of.shift) return;
    const C rstd = static_cast<C>(1 / std::sqrt(var + of.eps));
    of.rstd[statistic] = rstd;
    of.shift[statistic] = static_cast<C>(-(mean - of.mean[statistic]) * rstd);
  }
};

// f(i) for 0 <= i < n, on this thread or on all
template <class F>
void each(bool parallel, int64_t n, const F& f) {
  if (parallel) return for_each(n, f);
  for (int64_t i = 0; i < n; i++) f(i);
}

// Parts of the work that need nothing of each other: one for each thread if there are enough, else all threads on each.
// f(part, parallel), with parallel telling whether to share the part among the threads.
template <class F>
void share(int64_t parts, int64_t elements, const F& f) {
  const bool inside = parts < torch::stable::get_num_threads() && elements > 32768;
  if (inside) {
    for (int64_t i = 0; i < parts; i++) f(i, true);
  } else {
    parallel_for(0, parts, grain(elements / std::max<int64_t>(parts, 1)), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) f(i, false);
    });
  }
}

}  // namespace normkernels
