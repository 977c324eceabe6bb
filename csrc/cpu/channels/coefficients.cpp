// Loops over the channels of groups, between the sweeps: small images have more of these than of elements.
#include "cpu/channels/tiles.h"

namespace normkernels {
namespace {

// f(of(group), channel) for every channel of the groups
template <class L, class F>
NK_INLINE void each_channel_of(int64_t groups, int64_t D, const L& of, const F& f) {
  if (D == 1) {
#pragma omp simd
    for (int64_t c = 0; c < groups; c++) f(of(c), c);
    return;
  }
  for (int64_t g = 0; g < groups; g++) {
    const auto value = of(g);
#pragma omp simd
    for (int64_t c = g * D; c < (g + 1) * D; c++) f(value, c);
  }
}

// f(w), with w(channel)
template <class C, class F>
NK_INLINE void with_weight(const C* weight, const F& f) {
  weight ? f([=](int64_t c) NK_INLINED { return weight[c]; }) : f([](int64_t) NK_INLINED { return C(1); });
}

// Of a group, for sums of du * xhat
template <class S>
struct Spread {
  S rstd, shift;
};

// The sums over n channels of f(channel), a part after the other: in float no part is long enough to lose much.
template <class S, class F>
NK_INLINE Pair<double> sums_over(int64_t n, const F& f) {
  constexpr int64_t kPart = 256;
  Pair<double> sums = {};
  for (int64_t first = 0; first < n; first += kPart) {
    S a = 0, b = 0;
    const int64_t end = std::min(n, first + kPart);
#pragma omp simd reduction(+ : a, b)
    for (int64_t c = first; c < end; c++) {
      const Pair<S> v = f(c);
      a += v.a;
      b += v.b;
    }
    sums.a += a;
    sums.b += b;
  }
  return sums;
}

}  // namespace

template <class C>
NK_CLONES void scale_channels(const Groups<C>& of, C* mean, C* scale, C* shift) {
  const C *means = of.mean, *rstds = of.rstd, *shifts = of.shift, *bias = of.bias;
  const auto statistic = [=](int64_t g) NK_INLINED { return Scale<C>{means[g], rstds[g], shifts ? shifts[g] : C(0)}; };
  with_weight(of.weight, [&](auto w) NK_INLINED {
    each_channel_of(of.count, of.D, statistic, [=](const Scale<C>& k, int64_t c) NK_INLINED {
      mean[c] = k.mean;
      scale[c] = k.scale * w(c);
      shift[c] = k.shift * w(c);
    });
  });
  if (!bias) return;
  const int64_t n = of.count * of.D;
#pragma omp simd
  for (int64_t c = 0; c < n; c++) shift[c] += bias[c];
}

template <class C>
NK_CLONES void blend_channels(const Groups<C>& of, const C* about, const Means* means, C* mean, C* a, C* b, C* c) {
  const C *rstd = of.rstd, *shift = of.shift;
  const auto blend = [=](int64_t g) NK_INLINED { return blend_of(about[g], rstd[g], C(1), shift[g], means[g]); };
  with_weight(of.weight, [&](auto w) NK_INLINED {
    each_channel_of(of.count, of.D, blend, [=](const Blend<Same<C>>& k, int64_t i) NK_INLINED {
      mean[i] = k.mean.value;
      a[i] = k.a.value * w(i);
      b[i] = k.b.value;
      c[i] = k.c.value;
    });
  });
}

template <class C, class S>
NK_CLONES void add_channels(const Groups<C>& of, const S* a, const S* b, Means* means, C* dbias, C* dweight) {
  const int64_t groups = of.count, D = of.D;
  const C *rstd = of.rstd, *shift = of.shift;
  const auto spread = [=](int64_t g) NK_INLINED { return Spread<S>{rstd[g], shift[g]}; };
  const auto xhat = [=](const Spread<S>& k, int64_t c) NK_INLINED { return b[c] * k.rstd + a[c] * k.shift; };
  with_weight(of.weight, [&](auto w) NK_INLINED {
    if (D == 1) {
      return each_channel_of(groups, D, spread, [=](const Spread<S>& k, int64_t c) NK_INLINED {
        means[c].g += static_cast<double>(w(c)) * a[c];
        means[c].g_xhat += static_cast<double>(w(c)) * xhat(k, c);
      });
    }
    for (int64_t g = 0; g < groups; g++) {
      const auto k = spread(g);
      const auto sums = sums_over<S>(D, [=](int64_t d) NK_INLINED {
        const int64_t c = g * D + d;
        return Pair<S>{w(c) * a[c], w(c) * xhat(k, c)};
      });
      means[g].g += sums.a;
      means[g].g_xhat += sums.b;
    }
  });
  const int64_t n = groups * D;
  if (dbias) {
#pragma omp simd
    for (int64_t c = 0; c < n; c++) dbias[c] += static_cast<C>(a[c]);
  }
  if (!dweight) return;
  each_channel_of(groups, D, spread,
                  [=](const Spread<S>& k, int64_t c) NK_INLINED { dweight[c] += static_cast<C>(xhat(k, c)); });
}

template <class S>
NK_CLONES void add_groups(const S* a, const S* b, int64_t count, int64_t D, Pair<double>* sums) {
  if (D == 1) {
#pragma omp simd
    for (int64_t c = 0; c < count; c++) {
      sums[c].a += a[c];
      sums[c].b += b[c];
    }
    return;
  }
  for (int64_t g = 0; g < count; g++) {
    const auto of_group = sums_over<S>(D, [=](int64_t d) NK_INLINED { return Pair<S>{a[g * D + d], b[g * D + d]}; });
    sums[g].a += of_group.a;
    sums[g].b += of_group.b;
  }
}

#define NK_SUMS(C, S) template void add_channels(const Groups<C>&, const S*, const S*, Means*, C*, C*);
#define NK_COEFFICIENTS(C)                                    \
  template void scale_channels(const Groups<C>&, C*, C*, C*); \
  template void blend_channels(const Groups<C>&, const C*, const Means*, C*, C*, C*, C*);
NK_COEFFICIENTS(double)
NK_COEFFICIENTS(float)
NK_SUMS(double, double)
NK_SUMS(float, double)
NK_SUMS(float, float)
template void add_groups(const double*, const double*, int64_t, int64_t, Pair<double>*);
template void add_groups(const float*, const float*, int64_t, int64_t, Pair<double>*);

}  // namespace normkernels
