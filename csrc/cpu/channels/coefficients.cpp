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

constexpr int64_t kMost = 256;  // channels of a sum of floats, which loses little, or of groups that are summed at once

// The sums of f(channel) over n channels, a part after the other.
template <class S, class F>
NK_INLINE Pair<double> sums_over(int64_t n, const F& f) {
  Pair<double> sums = {};
  for (int64_t first = 0; first < n; first += kMost) {
    S a = 0, b = 0;
    const int64_t end = std::min(n, first + kMost);
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

// use(group, the sums of f(channel) over its D channels). A loop over few channels costs more than they do,
// so as long as D is even neighbours are added up, of all groups at once.
template <class S, class F, class U>
NK_INLINE void sums_of_few(int64_t groups, int64_t D, const F& f, const U& use) {
  S a[2][kMost], b[2][kMost];
#pragma omp simd
  for (int64_t c = 0; c < groups * D; c++) {
    const Pair<S> v = f(c);
    a[0][c] = v.a, b[0][c] = v.b;
  }
  int at = 0;
  for (; D % 2 == 0; D /= 2, at ^= 1) {
    const S *from_a = a[at], *from_b = b[at];
    S *to_a = a[at ^ 1], *to_b = b[at ^ 1];
#pragma omp simd
    for (int64_t c = 0; c < groups * D / 2; c++) {
      to_a[c] = from_a[2 * c] + from_a[2 * c + 1];
      to_b[c] = from_b[2 * c] + from_b[2 * c + 1];
    }
  }
  for (int64_t g = 0; g < groups; g++) {
    Pair<double> sums = {};
    for (int64_t c = g * D; c < (g + 1) * D; c++) {
      sums.a += a[at][c];
      sums.b += b[at][c];
    }
    use(g, sums);
  }
}

// use(group, its sums of a and b, or of the products with the weight w)
template <class S, class W, class F>
NK_INLINE void sums_of_groups(int64_t groups, int64_t D, const S* a, const S* b, const W& w, const F& use) {
  const int64_t some = std::max<int64_t>(1, kMost / D);
  for (int64_t first = 0; first < groups; first += some) {
    const int64_t count = std::min(some, groups - first), c = first * D;
    const auto value = [=](int64_t d) NK_INLINED { return Pair<S>{w(c + d) * a[c + d], w(c + d) * b[c + d]}; };
    if (some == 1) {
      use(first, sums_over<S>(D, value));
    } else {
      sums_of_few<S>(count, D, value, [=](int64_t g, const Pair<double>& sums) NK_INLINED { use(first + g, sums); });
    }
  }
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
  const auto xhat = [=](int64_t g, S a, S b) NK_INLINED { return b * rstd[g] + a * shift[g]; };
  with_weight(of.weight, [&](auto w) NK_INLINED {
    if (D == 1) {
      const auto channel = [](int64_t c) NK_INLINED { return c; };
      return each_channel_of(groups, D, channel, [=](int64_t, int64_t c) NK_INLINED {
        means[c].g += static_cast<double>(w(c)) * a[c];
        means[c].g_xhat += static_cast<double>(w(c)) * xhat(c, a[c], b[c]);
      });
    }
    sums_of_groups(groups, D, a, b, w, [=](int64_t g, const Pair<double>& sums) NK_INLINED {
      means[g].g += sums.a;
      means[g].g_xhat += sums.b * rstd[g] + sums.a * shift[g];
    });
  });
  const int64_t n = groups * D;
  if (dbias) {
#pragma omp simd
    for (int64_t c = 0; c < n; c++) dbias[c] += static_cast<C>(a[c]);
  }
  if (!dweight) return;
  each_channel_of(
      groups, D, [](int64_t g) NK_INLINED { return g; },
      [=](int64_t g, int64_t c) NK_INLINED { dweight[c] += static_cast<C>(xhat(g, a[c], b[c])); });
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
  const auto one = [](int64_t) NK_INLINED { return S(1); };
  sums_of_groups(count, D, a, b, one, [=](int64_t g, const Pair<double>& of_group) NK_INLINED {
    sums[g].a += of_group.a;
    sums[g].b += of_group.b;
  });
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
