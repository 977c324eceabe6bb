// The channel family on the CPU, backward: the sums of du and du * xhat, what a rule makes of them, and dx.
#pragma once

#include "cpu/channels/forward.h"
#include "cpu/channels/tiles.h"

namespace normkernels {

constexpr int64_t kScratch = 1 << 20;  // elements of du that are kept between two sweeps at most

// Statistics of their own are taken in chunks, each with a line of the tables of dweight and dbias: as many as are
// worth a thread, for small images have as many parameters as elements.
inline int64_t chunks(const Grid& g) {
  return std::clamp<int64_t>(g.N * g.C * g.S / kPart, 1, std::clamp<int64_t>(g.B, 1, 64));
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

template <class T>
struct Backward {
  using C = compute_t<T>;
  Channels<T> of;
  const T* dy;
  T *dx = nullptr, *dskip = nullptr;                    // dx null: sums only
  bool training = true;                                 // mean and var depend on x
  const C *mean_dy = nullptr, *mean_dy_xhat = nullptr;  // (C,): given where x is a part of the batch
  C *dweight = nullptr, *dbias = nullptr;               // (lines, C) tables, or null
  // A normaliser's own rule for statistics [first, first + count): what it takes for the means of g and g * xhat.
  std::function<void(int64_t first, int64_t count, Means*)> rule = nullptr;
  const C* centre = nullptr;  // what dx is centred about, if not mean
  double power = 2;           // of the scale that dx is a derivative of
  bool far = false;           // dskip has left the caches before anybody reads it; a fence follows

  bool plain() const { return of.plain(); }
  // Whether du can be kept in T between the sweeps.
  bool exact() const { return sizeof(T) >= 4 || of.affine.activation == Activation::relu; }
  bool keeps_dskip() const { return dskip && exact() && !of.plain() && !of.opener; }
  bool writes_dskip() const { return dskip && !keeps_dskip() && !of.opener; }  // beside dx
  bool sums() const { return !mean_dy && (training || dweight || dbias); }

  // Whether any of the statistics [first, first + count) of x is lost
  bool lost(int64_t first, int64_t count) const {
    if (!training || mean_dy || centre) return false;
    bool any = false;
    for (int64_t i = first; i < first + count; i++) any |= normkernels::lost(of.mean[i], of.var[i], of.rstd[i], of.eps);
    return any;
  }
  // What finds rstd and shift of these from x
  Forward<T> statistics() const { return {.of = of, .y = nullptr, .training = true, .again = true}; }
  // Whether the square of rstd is too much or too little for C
  bool wide(int64_t statistic) const { return !(of.rstd[statistic] < 1e15 && of.rstd[statistic] > 1e-15); }
  // Room to keep du in, if it is neither cheap to have again nor kept in dskip; else null.
  Room<C> scratch(int64_t elements) const {
    const bool wanted = !of.plain() && !of.gated() && !keeps_dskip() && sums() && elements <= kScratch;
    return Room<C>(wanted ? elements : 0);
  }

  // From dy to du, the gradient of u, and where an opener's is wanted, that in dskip
  void through(int64_t at, const C* u, C* du, int64_t n) const {
    const Affine<C>& k = of.affine;
    const Coming coming = Coming::of(of.x + at + n, dy + at + n, of.skip ? of.skip + at + n : nullptr);
    if (!of.opener) return times_derivative(k.activation, k.slope, u, du, n, coming);
    gate_backward_tile(k.activation, k.slope, of.opener + at, u, du, dskip ? dskip + at : nullptr, n, far);
  }

  // Call f with du = dy * act'(u) from element at on: dy itself without an activation. It is left in kept, if there is
  // room, else in dskip, if that is exact.
  template <class K, class F>
  void with_du(int64_t at, const Scale<K>& k, int64_t n, C* kept, const F& f) const {
    const T *x_tile = of.x + at, *skip_tile = of.skip ? of.skip + at : nullptr;
    if (of.plain()) return f(dy + at);
    if (of.gated() && exact()) {
      alignas(64) T buffer[kStep];
      T* du = keeps_dskip() && !far ? dskip + at : buffer;
      gate_tile(dy + at, x_tile, skip_tile, k, du, n);
      if (keeps_dskip() && far) copy_nontemporal(du, dskip + at, n * sizeof(T));
      return f(static_cast<const T*>(du));
    }
    alignas(64) C u[kStep], buffer[kStep];
    C* du = kept ? kept : buffer;
    if constexpr (std::is_same_v<C, T>) du = keeps_dskip() ? dskip + at : du;
    if (of.gated()) {
      gate_tile(dy + at, x_tile, skip_tile, k, du, n);
    } else {
      of.scaled(at, k, u, n);
      load_tile(dy + at, du, n);
      through(at, u, du, n);
    }
    f(static_cast<const C*>(du));
  }

  // The same where only dx is left: du = dy * act(opener) needs no u.
  template <class F>
  void with_du_opened(int64_t at, int64_t n, const F& f) const {
    alignas(64) C du[kStep];
    load_tile(dy + at, du, n);
    of.complete(at, du, n);
    f(static_cast<const C*>(du));
  }

  // The same for the second sweep, which finds what the first one left.
  template <class K, class F>
  void with_du_again(int64_t at, const Scale<K>& k, int64_t n, C* kept, const F& f) const {
    if (sums() && kept) return f(static_cast<const C*>(kept));
    if (sums() && keeps_dskip()) return f(static_cast<const T*>(dskip + at));
    if (sums() && of.opener) return with_du_opened(at, n, f);
    with_du(at, k, n, nullptr, f);
  }

  // dx of a tile, and dskip where it is not there yet
  template <class D, class K>
  void write(const D* du, int64_t at, const Blend<K>& k, int64_t n, bool nontemporal) const {
    if (writes_dskip()) write_du(du, dskip + at, n);
    if (power != 2) return blend_deviations(du, of.x + at, k, power, dx + at, n);
    if (nontemporal) return blend_nontemporal(du, of.x + at, k, dx + at, n);
    blend_tile(du, of.x + at, k, dx + at, n, of.grid.N * of.grid.C * of.grid.S);
  }

  // The same where C is too narrow for the coefficients
  template <class D, class K>
  void write_wide(const D* du, int64_t at, const Blend<K>& k, int64_t n) const {
    if (writes_dskip()) write_du(du, dskip + at, n);
    blend_tile(du, of.x + at, k, dx + at, n);
  }

  // From the sums of g and g * xhat over so many statistics what dx takes: those of the whole batch where they are
  // given, nothing where the statistics are.
  void settle(int64_t first, int64_t count, Scratch<Means>& means) const {
    if (sums()) {
      for (Means& m : means) m = {m.g / of.grid.count(), m.g_xhat / of.grid.count()};
      if (rule) rule(first, count, means.data());
    }
    for (int64_t i = 0; i < count && mean_dy; i++) {
      const C w = of.weight(first + i);  // of a channel, which is a statistic then
      means[i] = {static_cast<double>(w * mean_dy[first + i]), static_cast<double>(w * mean_dy_xhat[first + i])};
    }
    if (!training) std::fill(means.begin(), means.end(), Means{});
  }

  // The sums a and b of the channels of some groups, from c on, go where they belong.
  template <class S>
  void add(const Groups<C>& groups, int64_t c, int64_t line, const S* a, const S* b, Scratch<Means>& means) const {
    const auto to = [=, this](C* table) { return table ? table + line * of.grid.C + c : nullptr; };
    add_channels(groups, a, b, means.data(), to(dbias), to(dweight));
  }
  const C* about() const { return centre ? centre : of.mean; }
  template <class M>
  Blend<Same<M>> blend(int64_t statistic, int64_t c, const Means& means) const {
    return blend_of<M>(about()[statistic], of.rstd[statistic], of.weight(c), of.shift[statistic], means);
  }
};

// The coefficients of dx of the channels of some groups, in M, a value for each.
template <class M>
struct ChannelBlend {
  Raw<M> mean, a, b, c;

  template <class T>
  ChannelBlend(const Backward<T>& sweep, const Groups<compute_t<T>>& groups, int64_t statistic, int64_t channel,
               const Scratch<Means>& means)
      : mean(groups.count * groups.D), a(mean.size()), b(mean.size()), c(mean.size()) {
    if constexpr (std::is_same_v<M, compute_t<T>>) {
      blend_channels(groups, sweep.about() + statistic, means.data(), mean.data(), a.data(), b.data(), c.data());
    } else {
      for (size_t j = 0; j < mean.size(); j++) {
        const int64_t k = j / groups.D;
        const auto blend = sweep.template blend<M>(statistic + k, channel + j, means[k]);
        mean[j] = blend.mean.value, a[j] = blend.a.value, b[j] = blend.b.value, c[j] = blend.c.value;
      }
    }
  }
  Blend<const M*> at(int64_t j) const { return {&mean[j], &a[j], &b[j], &c[j]}; }
};

}  // namespace normkernels
