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
struct Spread {
  double rstd, shift;
};

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
  const auto spread = [=](int64_t g) NK_INLINED { return Spread{rstd[g], shift[g]}; };
  const auto xhat = [=](const Spread& k, int64_t c) NK_INLINED { return b[c] * k.rstd + a[c] * k.shift; };
  with_weight(of.weight, [&](auto w) NK_INLINED {
    if (D == 1) {
      return each_channel_of(groups, D, spread, [=](const Spread& k, int64_t c) NK_INLINED {
        means[c].g += static_cast<double>(w(c)) * a[c];
        means[c].g_xhat += static_cast<double>(w(c)) * xhat(k, c);
      });
    }
    for (int64_t g = 0; g < groups; g++) {
      const Spread k = spread(g);
      double sum = 0, sum_xhat = 0;
#pragma omp simd reduction(+ : sum, sum_xhat)
      for (int64_t c = g * D; c < (g + 1) * D; c++) {
        sum += static_cast<double>(w(c)) * a[c];
        sum_xhat += static_cast<double>(w(c)) * xhat(k, c);
      }
      means[g].g += sum;
      means[g].g_xhat += sum_xhat;
    }
  });
  const int64_t n = groups * D;
  if (dbias) {
#pragma omp simd
    for (int64_t c = 0; c < n; c++) dbias[c] += static_cast<C>(a[c]);
  }
  if (!dweight) return;
  each_channel_of(groups, D, spread,
                  [=](const Spread& k, int64_t c) NK_INLINED { dweight[c] += static_cast<C>(xhat(k, c)); });
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
    double of_a = 0, of_b = 0;
#pragma omp simd reduction(+ : of_a, of_b)
    for (int64_t c = g * D; c < (g + 1) * D; c++) {
      of_a += a[c];
      of_b += b[c];
    }
    sums[g].a += of_a;
    sums[g].b += of_b;
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
