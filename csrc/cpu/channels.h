// The channel family on the CPU: statistics that pool planes (one channel of one image), whatever the layout.
//
// Every member is two sweeps with a rule between them: moments -> mean and var -> y, and sums -> means -> dx. Planes
// are pooled in an order fixed by the shape, so the number of threads does not change a bit.
#pragma once

#include <cmath>
#include <vector>

#include "activations.h"
#include "channel_tiles.h"
#include "rows.h"
#include "threads.h"

namespace normkernels {

// N images of C channels of S positions; statistics (B, G): each pools N / B images and C / G adjacent channels.
struct Grid {
  int64_t N, C, S, B, G;

  int64_t images() const { return N / B; }
  int64_t channels() const { return C / G; }
  double count() const { return static_cast<double>(images() * channels() * S); }
};

// Both directions: what is normalised, and by what.
template <class T>
struct Channels {
  using C = compute_t<T>;
  Grid grid;
  const T *x, *skip;  // skip: or null
  Affine<C> affine;
  C *mean, *var;  // (B, G)
  double eps;

  bool plain() const { return affine.activation == Activation::identity; }
  C weight(int64_t c) const { return affine.weight ? affine.weight[c] : C(1); }
  C bias(int64_t c) const { return affine.bias ? affine.bias[c] : C(0); }
  C rstd(int64_t statistic) const { return static_cast<C>(1 / std::sqrt(static_cast<double>(var[statistic]) + eps)); }
  Scale<Same<C>> scale(int64_t statistic, int64_t c) const {
    return {{mean[statistic]}, {rstd(statistic) * weight(c)}, {bias(c)}};
  }

  // out = act((x - mean) * scale + shift + skip)
  template <class K>
  void write(const T* x_tile, const T* skip_tile, const Scale<K>& k, T* out, int64_t n, bool past) const {
    if (plain()) return past ? scale_past(x_tile, skip_tile, k, out, n) : scale_tile(x_tile, skip_tile, k, out, n);
    alignas(64) C u[kStep];
    scale_tile(x_tile, skip_tile, k, u, n);
    activate(affine.activation, affine.slope, u, n);
    store_tile(u, out, n);
  }

  // Call f with du = dy * act'(u) of a tile: dy itself without an activation.
  template <class K, class F>
  void with_du(const T* dy, const T* x_tile, const T* skip_tile, const Scale<K>& k, int64_t n, const F& f) const {
    if (plain()) return f(dy);
    alignas(64) C u[kStep], du[kStep];
    scale_tile(x_tile, skip_tile, k, u, n);
    load_tile(dy, du, n);
    times_derivative(affine.activation, affine.slope, u, du, n);
    f(static_cast<const C*>(du));
  }
};

template <class T>
struct Forward : Channels<T> {
  T* y;           // null: statistics only
  bool training;  // mean and var are those of x, and written; else they are given
};

// What dx needs of one statistic, from the sums of its channels.
struct Means {
  double g = 0, g_xhat = 0;
};

template <class T>
struct Backward : Channels<T> {
  using C = compute_t<T>;
  const T* dy;
  T *dx, *dskip;                    // dx null: sums only
  bool training;                    // mean and var depend on x
  const C *mean_dy, *mean_dy_xhat;  // (C,): given where x is a part of the batch, else null
  C *dweight, *dbias;               // (lines, C) tables, or null

  // The coefficients of dx = rstd * (du * w - means.g - xhat * means.g_xhat)
  Blend<Same<C>> blend(int64_t statistic, int64_t c, Means means) const {
    const C r = this->rstd(statistic), w = this->weight(c);
    if (mean_dy) means = {static_cast<double>(w * mean_dy[c]), static_cast<double>(w * mean_dy_xhat[c])};
    if (!training) means = {};
    return {{this->mean[statistic]}, {r * w}, {static_cast<C>(-r * r * means.g_xhat)}, {static_cast<C>(-r * means.g)}};
  }
};

// The means of g and g * xhat from the sums over channel c of du and of du * (x - mean), which go to the parameters'
// too.
template <class T>
void add_channel(const Backward<T>& a, int64_t statistic, int64_t c, Pair<double> sums, int64_t line, Means& means) {
  using C = compute_t<T>;
  const double sum_xhat = sums.b * a.rstd(statistic), w = a.weight(c) / a.grid.count();
  means.g += w * sums.a;
  means.g_xhat += w * sum_xhat;
  if (a.dbias) a.dbias[line * a.grid.C + c] += static_cast<C>(sums.a);
  if (a.dweight) a.dweight[line * a.grid.C + c] += static_cast<C>(sum_xhat);
}

// du as it leaves, rounded; T is du's own type where there is no activation.
template <class T, class D>
void write_du(const D* du, T* out, int64_t n) {
  if constexpr (std::is_same_v<D, compute_t<T>>) {
    store_tile(du, out, n);
  } else {
    std::copy_n(du, n, out);
  }
}

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
