// Loops over the channels of one sample, written to vectorise.
#include "cpu/online/tiles.h"

#include <cmath>
#include <type_traits>

#include "cpu/base/lanes.h"

namespace normkernels {
namespace {

// Neither infinite nor NaN
template <class C>
NK_INLINE bool finite(C v) {
  return v - v == 0;
}

// f(std::true_type) or f(std::false_type): a loop that asks each time would not vectorise.
template <class F>
NK_INLINE auto either(bool condition, const F& f) {
  return condition ? f(std::true_type()) : f(std::false_type());
}

}  // namespace

template <class T, class C>
NK_CLONES C meet_tile(const T* m, const C* s, double rate, double eps, double* state_mean, double* state_var,
                      const Met<C>& met, int64_t n) {
  const double cross = rate * (1 - rate);
  return either(s != nullptr, [=, to = met](auto spreads) NK_INLINED {
    constexpr bool kYes = spreads.value;
    C total = 0;
#pragma omp simd reduction(+ : total)
    for (int64_t i = 0; i < n; i++) {
      const double mean = state_mean[i], var = state_var[i];
      const double value = load(m[i]), spread = kYes ? static_cast<double>(s[i]) : 0.0, d = value - mean;
      const C r = C(1) / std::sqrt(static_cast<C>(var + eps)), xhat = static_cast<C>(d) * r;
      const C square = kYes ? static_cast<C>(spread + d * d) * r * r : xhat * xhat;
      total += to.weight[i] * (to.weight[i] * square + 2 * to.bias[i] * xhat) + to.bias[i] * to.bias[i];
      to.mean[i] = static_cast<C>(mean);
      to.rstd[i] = r;
      if constexpr (kYes) {
        to.xhat[i] = xhat;
        to.square[i] = square;
      }
      const bool counts = finite(static_cast<C>(4 * (spread + value * value)));
      state_var[i] = counts ? var + (rate * (spread - var) + cross * d * d) : var;
      state_mean[i] = counts ? mean + rate * d : mean;
    }
    return total;
  });
}

template <class C>
NK_CLONES void fold_tile(const Met<C>& met, C gain, C* scale, C* shift, int64_t n) {
  const Met<C> from = met;
#pragma omp simd
  for (int64_t i = 0; i < n; i++) {
    scale[i] = from.rstd[i] * from.weight[i] * gain;
    shift[i] = from.bias[i] * gain;
  }
}

template <class T, class C>
NK_CLONES void clamp_tile(const C* z, C clamp, const T* skip, C* u, int64_t n) {
  const auto within = [=](int64_t i) NK_INLINED { return z[i] > clamp ? clamp : (z[i] < -clamp ? -clamp : z[i]); };
  if (!skip) return map(u, n, within);
  map(u, n, [=](int64_t i) NK_INLINED { return within(i) + load(skip[i]); });
}

template <class C>
NK_CLONES void mask_tile(const C* z, C clamp, C* du, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; i++) du[i] = z[i] > clamp || z[i] < -clamp ? C(0) : du[i];
}

template <class T, class C>
NK_CLONES C guard_tile(const Met<C>& met, const T* x, const C* g, const C* gx, int64_t n) {
  return either(gx != nullptr, [=, from = met](auto given) NK_INLINED {
    C total = 0;
#pragma omp simd reduction(+ : total)
    for (int64_t i = 0; i < n; i++) {
      const C product = given.value ? gx[i] : g[i] * ((load(x[i]) - from.mean[i]) * from.rstd[i]);
      total += from.weight[i] * product + from.bias[i] * g[i];
    }
    return total;
  });
}

template <bool kSingle, bool kStable, class T, class C>
NK_INLINE void control(const Met<C> met, const T* x, const C* g, const C* gx, const SampleTerms<C> sample,
                       const Control to, C* a, C* b, C* c, int64_t n) {
  const C gain = sample.gain, share = sample.kappa * gain, p = sample.p;
  const double count = sample.count;
#pragma omp simd
  for (int64_t i = 0; i < n; i++) {
    const C w = met.weight[i], bias = met.bias[i], r = met.rstd[i];
    const C xhat = kSingle ? (load(x[i]) - met.mean[i]) * r : met.xhat[i];
    const C square = kSingle ? xhat * xhat : met.square[i];
    const C of_g = (g[i] - share * (w * xhat + bias)) * gain;
    const C of_gx = ((kSingle ? g[i] * xhat : gx[i]) - share * (w * square + bias * xhat)) * gain;
    to.dweight[i] += count * of_gx;
    to.dbias[i] += count * of_g;
    const double e = to.epsilon_y[i], u = to.epsilon_1[i];
    C q = p;
    if constexpr (kStable) q = C(1) / square < p ? C(1) / square : p;
    const C pe = static_cast<C>(q * e);
    a[i] = w * gain * r;
    b[i] = -(w * w * share * gain + pe) * r * r;
    c[i] = -w * bias * share * gain * r - static_cast<C>(p * u);
    const bool counts = finite(square) & finite(w * of_g) & finite(w * of_gx);
    to.epsilon_y[i] = counts ? e - q * square * e + w * of_gx : e;
    to.epsilon_1[i] = counts ? u - p * u + (w * of_g - q * e * xhat) * r : u;
  }
}

template <class T, class C>
NK_CLONES void control_tile(const Met<C>& met, const T* x, const C* g, const C* gx, const SampleTerms<C>& sample,
                            const Control& to, C* a, C* b, C* c, int64_t n) {
  either(gx == nullptr, [&](auto single) NK_INLINED {
    either(sample.stable,
           [&](auto stable) NK_INLINED { control<single.value, stable.value>(met, x, g, gx, sample, to, a, b, c, n); });
  });
}

#define NK_SCAN(C)                                   \
  template void mask_tile(const C*, C, C*, int64_t); \
  template void fold_tile(const Met<C>&, C, C*, C*, int64_t);
#define NK_SAMPLES(T, C)                                                                                             \
  template void clamp_tile(const C*, C, const T*, C*, int64_t);                                                      \
  template C meet_tile(const T*, const C*, double, double, double*, double*, const Met<C>&, int64_t);                \
  template C guard_tile(const Met<C>&, const T*, const C*, const C*, int64_t);                                       \
  template void control_tile(const Met<C>&, const T*, const C*, const C*, const SampleTerms<C>&, const Control&, C*, \
                             C*, C*, int64_t);
NK_SCAN(double)
NK_SCAN(float)
NK_SAMPLES(double, double)
NK_SAMPLES(float, float)
NK_SAMPLES(bfloat16, float)
NK_SAMPLES(float16, float)

}  // namespace normkernels
