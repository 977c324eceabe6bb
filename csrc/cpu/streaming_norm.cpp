// Streaming Normalization: batch norm's sweeps, with long- and short-term memories between them.
#include "checks/channel_rules.h"
#include "cpu/base/glibc.h"
#include "cpu/channels/norm_backward.h"
#include "cpu/channels/rule_tiles.h"
#include "cpu/channels/tiles.h"

namespace normkernels {
namespace {

// Sums over each channel of |x - mean|^p and of |x - mean|^(p - 1) sign(x - mean)
template <class T>
Scratch<Pair<double>> deviations(const Channels<T>& a, double p, bool last) {
  using C = compute_t<T>;
  const Grid& g = a.grid;
  Scratch<Pair<double>> total(g.C);
  const auto add = [](Pair<double>& to, auto x, auto y) { to = {to.a + x, to.b + y}; };
  if (!last) {
    for_each(g.C, [&](int64_t c) {
      for (int64_t n = 0; n < g.N; n++) {
        for_each_tile(g.plane(n, c), g.plane(n, c) + g.S, [&](int64_t j, int64_t m) {
          const auto part = deviation_sums(a.x + j, a.mean[c], p, m);
          add(total[c], part.a, part.b);
        });
      }
    });
    return total;
  }
  const int64_t rows = g.N * g.S;
  for_each((g.C + kStep - 1) / kStep, [&](int64_t step) {
    const int64_t c = step * kStep, n = std::min(kStep, g.C - c);
    for (int64_t row = 0; row < rows; row += kBlock) {
      C p_sums[kStep] = {}, slopes[kStep] = {};
      for (int64_t r = row; r < std::min(rows, row + kBlock); r++)
        add_deviations(a.x + r * g.C + c, a.mean + c, p, p_sums, slopes, n);
      for (int64_t i = 0; i < n; i++) add(total[c + i], p_sums[i], slopes[i]);
    }
  });
  return total;
}

template <class C>
Memory<C> memory_of(const Tensor& long_term, const Tensor& short_term, const Tensor& counts,
                    const Tensor& new_short_term, double of_long, double of_short, double of_current) {
  return {.long_term = pointer<C>(long_term),
          .short_term = pointer<C>(short_term),
          .counts = pointer<C>(counts),
          .new_short_term = pointer<C>(new_short_term),
          .of_long = static_cast<C>(of_long),
          .of_short = static_cast<C>(of_short),
          .of_current = static_cast<C>(of_current)};
}

// What forward finds and uses: (2, n), means and scales.
template <class C>
struct Statistics {
  C *found, *used, *deviations;  // deviations: (n,) or null
  Memory<C> memory;
  int64_t n;

  // Once the statistics [first, first + count) are found
  void use(int64_t first, int64_t count) const {
    for (const int64_t at : {first, n + first}) use_tile(memory, at, found + at, used + at, count);
  }
};

// The scale is the standard deviation: one sweep for both statistics, and the second sweep finds what is used.
template <class T>
void standard(Forward<T> a, const Statistics<compute_t<T>>& s, bool last) {
  a.rule = [a, &s](int64_t first, int64_t count) {
    for (int64_t c = first; c < first + count; c++) {
      s.found[c] = a.of.mean[c];
      s.found[s.n + c] = 1 / a.of.rstd[c];
    }
    s.use(first, count);
    for (int64_t c = first; c < first + count; c++) {
      a.of.mean[c] = s.used[c];
      a.of.rstd[c] = 1 / s.used[s.n + c];
      a.of.shift[c] = 0;  // that was of the mean found
    }
  };
  forward(a, last);
}

// Any other p: the means, the deviations from them, y.
template <class T>
void general(Forward<T> a, const Statistics<compute_t<T>>& s, double p, bool last) {
  Forward<T> moments = a;
  moments.y = nullptr;
  forward(moments, last);
  const auto sums = deviations<T>(a.of, p, last);
  for (int64_t c = 0; c < s.n; c++) {
    s.found[c] = a.of.mean[c];
    s.found[s.n + c] = static_cast<compute_t<T>>(std::pow(sums[c].a / a.of.grid.count() + a.of.eps, 1 / p));
    s.deviations[c] = static_cast<compute_t<T>>(sums[c].b / a.of.grid.count());
  }
  s.use(0, s.n);
  for (int64_t c = 0; c < s.n; c++) {
    a.of.mean[c] = s.used[c];
    a.of.rstd[c] = 1 / s.used[s.n + c];
  }
  std::fill_n(a.of.shift, s.n, compute_t<T>(0));
  a.training = false;
  sweep_forward(a, last);
}

}  // namespace

void streaming_norm_fwd(const Tensor& x, const OptionalTensor& skip, const OptionalTensor& weight,
                        const OptionalTensor& bias, const Tensor& long_term, const Tensor& short_term,
                        const Tensor& counts, const Tensor& y, const Tensor& found, const Tensor& used,
                        const OptionalTensor& deviations, const Tensor& new_short_term, double of_long, double of_short,
                        double p, double eps, const std::string& name, double slope, bool last) {
  if (!check::streaming_norm_fwd(x, skip, weight, bias, long_term, short_term, counts, y, found, used, deviations,
                                 new_short_term, p, last))
    return;
  with_channels({x, skip, weight, bias, {}, {}, eps, name, slope, last}, [&]<class T>(const Channels<T>& channels) {
    using C = compute_t<T>;
    const auto memory = memory_of<C>(long_term, short_term, counts, new_short_term, of_long, of_short, 0);
    const Statistics<C> s = {.found = pointer<C>(found),
                             .used = pointer<C>(used),
                             .deviations = pointer<C>(deviations),
                             .memory = memory,
                             .n = channels.grid.C};
    const Forward<T> a{.of = channels, .y = pointer<T>(y)};
    p == 2 ? standard(a, s, last) : general(a, s, p, last);
  });
}

void streaming_norm_bwd(const Tensor& dy, const Tensor& x, const OptionalTensor& skip, const OptionalTensor& weight,
                        const OptionalTensor& bias, const Tensor& found, const Tensor& used,
                        const OptionalTensor& deviations, const Tensor& long_term, const Tensor& short_term,
                        const Tensor& counts, const Tensor& dx, const OptionalTensor& dskip,
                        const OptionalTensor& dweight, const OptionalTensor& dbias, const Tensor& new_short_term,
                        double of_long, double of_short, double of_current, double p, double, const std::string& name,
                        double slope, bool last) {
  if (!check::streaming_norm_bwd(dy, x, skip, weight, bias, found, used, deviations, long_term, short_term, counts, dx,
                                 dskip, dweight, dbias, new_short_term, p, last))
    return;
  with_channels({x, skip, weight, bias, {}, {}, 0, name, slope, last}, [&]<class T>(const Channels<T>& channels) {
    using C = compute_t<T>;
    const int64_t n = channels.grid.C;
    const double count = channels.grid.count();
    const auto memory = memory_of<C>(long_term, short_term, counts, new_short_term, of_long, of_short, of_current);
    const C *of_found = pointer<C>(found), *of_used = pointer<C>(used), *slopes = pointer<C>(deviations);
    Scratch<C> of_weight(n), of_bias(n);
    Backward<T> a{.of = channels,
                  .dy = pointer<T>(dy),
                  .dx = pointer<T>(dx),
                  .dskip = pointer<T>(dskip),
                  .dweight = of_weight.data(),
                  .dbias = of_bias.data(),
                  .centre = of_found,
                  .power = p};
    for (int64_t c = 0; c < n; c++) {
      a.of.mean[c] = of_used[c];
      a.of.rstd[c] = 1 / of_used[n + c];
      a.of.shift[c] = 0;
    }
    // dx = w du / scale + (gradient of the mean + gradient of the scale * (slope - mean slope) * scale^(1 - p)) / count
    a.rule = [&](int64_t first, int64_t m, Means* means) {
      Scratch<C> of_mean(m), of_scale(m);
      for (int64_t i = 0; i < m; i++) {
        of_mean[i] = static_cast<C>(-means[i].g * count / of_used[n + first + i]);
        of_scale[i] = static_cast<C>(-means[i].g_xhat * count / of_used[n + first + i]);
      }
      use_tile(memory, first, of_mean.data(), of_mean.data(), m);
      use_tile(memory, n + first, of_scale.data(), of_scale.data(), m);
      for (int64_t i = 0; i < m; i++) {
        const double r = 1 / of_used[n + first + i], scale = of_found[n + first + i];
        const double b = of_scale[i] * (slopes ? std::pow(scale, 1 - p) : 1 / scale) / count;
        means[i] = {-(of_mean[i] / count - (slopes ? b * slopes[first + i] : 0)) / r, -b / (r * r)};
      }
    };
    sweep_backward(a, last);
    store_values(of_weight, dweight);
    store_values(of_bias, dbias);
  });
}

NK_CPU(streaming_norm_fwd, streaming_norm_fwd)
NK_CPU(streaming_norm_bwd, streaming_norm_bwd)

}  // namespace normkernels
