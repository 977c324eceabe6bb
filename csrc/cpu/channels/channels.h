// The channel family on the CPU: statistics that pool planes (one channel of one image), whatever the layout.
//
// Every member is two sweeps with a rule between them: moments -> mean and var -> y, and sums -> means -> dx. Planes
// are pooled in an order fixed by the shape, so the number of threads does not change a bit.
#pragma once

#include <cmath>
#include <functional>
#include <limits>
#include <memory>

#include "cpu/base/affine.h"
#include "cpu/base/scratch.h"
#include "cpu/base/threads.h"
#include "cpu/channels/deviation_tiles.h"
#include "cpu/channels/rule_tiles.h"
#include "cpu/channels/sums.h"
#include "cpu/channels/tiles.h"

namespace normkernels {

constexpr int64_t kScratch = 1 << 20;  // elements of du that are kept between two sweeps at most

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
  void write(const T* x_tile, const T* skip_tile, const Scale<K>& k, T* out, int64_t n, bool past) const {
    if (sizeof(T) == 2 && gated()) past = false;  // arithmetic, not memory, is the limit there
    if (plain() || gated())
      return past ? scale_past(x_tile, skip_tile, k, out, n) : scale_tile(x_tile, skip_tile, k, out, n);
    alignas(64) C u[kStep];
    scale_tile(x_tile, skip_tile, k, u, n);
    activate(affine.activation, affine.slope, u, n);
    past ? store_past(u, out, n) : store_tile(u, out, n);
  }
};

template <class T>
struct Forward : Channels<T> {
  T* y;           // null: statistics only
  bool training;  // mean and var are those of x, and written; else they are given
  // A normaliser's own rule for statistics [first, first + count) of x: it may replace mean, rstd, weight and bias.
  std::function<void(int64_t first, int64_t count)> rule = nullptr;
  bool again = false;  // mean and var are there, but rounded: rstd and shift are wanted

  // A variance beyond C is kept as a number from which a running one recovers.
  void keep(int64_t statistic, double mean, double var) const {
    using C = compute_t<T>;
    if (!again) {
      this->mean[statistic] = static_cast<C>(mean);
      this->var[statistic] = static_cast<C>(std::min(var, static_cast<double>(std::numeric_limits<C>::max()) / 2));
    }
    if (!this->shift) return;
    const C rstd = static_cast<C>(1 / std::sqrt(var + this->eps));
    this->rstd[statistic] = rstd;
    this->shift[statistic] = static_cast<C>(-(mean - this->mean[statistic]) * rstd);
  }
};

// What dx needs of one statistic, from the sums of its channels.
struct Means {
  double g = 0, g_xhat = 0;
};

// du as it leaves, rounded; T is du's own type where there is no activation.
template <class T, class D>
void write_du(const D* du, T* out, int64_t n) {
  if constexpr (std::is_same_v<D, compute_t<T>>) {
    store_tile(du, out, n);
  } else {
    std::copy_n(du, n, out);
  }
}

template <class T>
struct Backward : Channels<T> {
  using C = compute_t<T>;
  const T* dy;
  T *dx, *dskip;                    // dx null: sums only
  bool training;                    // mean and var depend on x
  const C *mean_dy, *mean_dy_xhat;  // (C,): given where x is a part of the batch, else null
  C *dweight, *dbias;               // (lines, C) tables, or null
  // A normaliser's own rule for statistics [first, first + count): what it takes for the means of g and g * xhat.
  std::function<void(int64_t first, int64_t count, Means*)> rule = nullptr;
  const C* centre = nullptr;  // what dx is centred about, if not mean
  double power = 2;           // of the scale that dx is a derivative of

  // Whether du can be kept in T between the sweeps.
  bool exact() const { return sizeof(T) >= 4 || this->affine.activation == Activation::relu; }
  bool keeps_dskip() const { return dskip && exact() && !this->plain(); }
  bool sums() const { return !mean_dy && (training || dweight || dbias); }

  // Whether statistics [first, first + count) of x lost too much when they were kept: far from 0, or var beyond C
  bool lost(int64_t first, int64_t count) const {
    if (!training || mean_dy || centre) return false;
    bool any = false;
    for (int64_t i = first; i < first + count; i++) {
      const double var = this->var[i] + this->eps;
      any |= std::fabs(this->mean[i]) * this->rstd[i] > kNear || !(var > 1e-30 && var < 1e37);
    }
    return any;
  }
  // What finds rstd and shift of these from x
  Forward<T> statistics() const { return {*this, nullptr, true, nullptr, true}; }
  // Whether the square of rstd is too much or too little for C
  bool wide(int64_t statistic) const { return !(this->rstd[statistic] < 1e15 && this->rstd[statistic] > 1e-15); }
  // Room to keep du in, if it is neither cheap to have again nor kept in dskip; else null.
  std::unique_ptr<C[]> scratch(int64_t elements) const {
    const bool wanted = !this->plain() && !this->gated() && !keeps_dskip() && sums() && elements <= kScratch;
    return std::unique_ptr<C[]>(wanted ? new C[elements] : nullptr);
  }

  // Call f with du = dy * act'(u) from element at on: dy itself without an activation. It is left in kept, if there is
  // room, else in dskip, if that is exact.
  template <class K, class F>
  void with_du(int64_t at, const Scale<K>& k, int64_t n, C* kept, const F& f) const {
    const T *x_tile = this->x + at, *skip_tile = this->skip ? this->skip + at : nullptr;
    if (this->plain()) return f(dy + at);
    if (this->gated() && exact()) {
      alignas(64) T buffer[kStep];
      T* du = keeps_dskip() ? dskip + at : buffer;
      gate_tile(dy + at, x_tile, skip_tile, k, du, n);
      return f(static_cast<const T*>(du));
    }
    alignas(64) C u[kStep], buffer[kStep];
    C* du = kept ? kept : buffer;
    if constexpr (std::is_same_v<C, T>) du = keeps_dskip() ? dskip + at : du;
    if (this->gated()) {
      gate_tile(dy + at, x_tile, skip_tile, k, du, n);
    } else {
      scale_tile(x_tile, skip_tile, k, u, n);
      load_tile(dy + at, du, n);
      times_derivative(this->affine.activation, this->affine.slope, u, du, n);
    }
    f(static_cast<const C*>(du));
  }

  // The same for the second sweep, which finds what the first one left.
  template <class K, class F>
  void with_du_again(int64_t at, const Scale<K>& k, int64_t n, C* kept, const F& f) const {
    if (sums() && kept) return f(static_cast<const C*>(kept));
    if (sums() && keeps_dskip()) return f(static_cast<const T*>(dskip + at));
    with_du(at, k, n, nullptr, f);
  }

  // dx of a tile, and dskip where it is not there yet
  template <class D, class K>
  void write(const D* du, int64_t at, const Blend<K>& k, int64_t n, bool past) const {
    if (dskip && !keeps_dskip()) write_du(du, dskip + at, n);
    if (power != 2) return blend_deviations(du, this->x + at, k, power, dx + at, n);
    past ? blend_past(du, this->x + at, k, dx + at, n) : blend_tile(du, this->x + at, k, dx + at, n);
  }

  // The same where C is too narrow for the coefficients
  template <class D, class K>
  void write_wide(const D* du, int64_t at, const Blend<K>& k, int64_t n) const {
    if (dskip && !keeps_dskip()) write_du(du, dskip + at, n);
    blend_tile(du, this->x + at, k, dx + at, n);
  }

  // The coefficients, in M, of dx = rstd * (du * w - means.g - xhat * means.g_xhat)
  template <class M>
  NK_INLINE Blend<Same<M>> blend(int64_t statistic, int64_t c, Means means) const {
    const M r = this->rstd[statistic], w = this->weight(c);
    if (mean_dy) means = {static_cast<double>(w * mean_dy[c]), static_cast<double>(w * mean_dy_xhat[c])};
    if (!training) means = {};
    const C about = centre ? centre[statistic] : this->mean[statistic];
    const double added = centre ? 0 : this->shift_of(statistic) * means.g_xhat;
    return {{about}, {r * w}, {static_cast<M>(-r * r * means.g_xhat)}, {static_cast<M>(-r * (means.g + added))}};
  }
};

// Adds to the sums of g and g * xhat those over channel c, from its sums of du and of du * (x - mean), which go to the
// parameters' too.
template <class T>
NK_INLINE void add_channel(const Backward<T>& a, int64_t statistic, int64_t c, Pair<double> sums, int64_t line,
                           Means& means) {
  using C = compute_t<T>;
  const double sum_xhat = sums.b * a.rstd[statistic] + sums.a * a.shift_of(statistic), w = a.weight(c);
  means.g += w * sums.a;
  means.g_xhat += w * sum_xhat;
  if (a.dbias) a.dbias[line * a.grid.C + c] += static_cast<C>(sums.a);
  if (a.dweight) a.dweight[line * a.grid.C + c] += static_cast<C>(sum_xhat);
}

// Sums of g and g * xhat of statistics, as means
inline void average(Scratch<Means>& sums, double count) {
  for (Means& m : sums) m = {m.g / count, m.g_xhat / count};
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
