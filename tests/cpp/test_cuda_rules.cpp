// The CUDA kernels of batch renorm and streaming norm, run on the CPU.
#include "cuda/channels/batch_renorm.cuh"
#include "cuda/channels/streaming_norm.cuh"
#include "statistics.h"

// The moments of channel i over the batch: the mean, and those of |x - mean|^p and its derivative by p.
template <class T>
std::array<Real, 3> batch_moments(const Data<T>& d, int64_t i, Real p) {
  Real m = 0, v = 0, a = 0;
  const auto all = [&](auto body) {
    for (int64_t n = 0; n < d.c.N; ++n)
      for (int64_t s = 0; s < d.c.S; ++s) body(d.x[d.at(n, i, s)]);
  };
  const Real count = d.c.N * d.c.S;
  all([&](Real x) { m += x / count; });
  all([&](Real x) { v += std::pow(std::fabs(x - m), p) / count; });
  all([&](Real x) { a += x == m ? 0 : std::copysign(std::pow(std::fabs(x - m), p - 1), x - m) / count; });
  return {m, v, a};
}

template <class T>
void check_renorm(const Case& c, double r_limit, double d_limit) {
  using A = acc_t<T>;
  Data<T> d(c, "renorm");
  const int64_t C = c.C;
  const Real count = c.N * c.S;
  Buffer<A> mu(normal(C, 11)), std(normal(C, 12, 1.5, 0.3)), most_r(std::vector<double>{r_limit}),
      most_d(std::vector<double>{d_limit}), mean(C), var(C), r(C), off(C);
  BatchRenormForward<T> f{};
  f.plan = make_plan<T>(c.N, C, c.S, 1, C, c.last, c.aligned), d.give_forward(f), f.eps = kEps;
  f.mean = mean.data, f.var = var.data, f.running_mean = mu.data, f.running_std = std.data;
  f.r_max = most_r.data, f.d_max = most_d.data, f.r = r.data, f.d = off.data;
  batch_renorm_forward(f, d.device, d.workspace());
  ChannelsBackward<T> p{};
  p.plan = f.plan, d.give_backward(p), p.mean = mean.data, p.var = var.data, p.eps = kEps;
  batch_renorm_backward(p, r.data, off.data, d.sums(), d.device, d.workspace());

  std::map<std::string, Reals> right;
  for (int64_t i = 0; i < C; ++i) {
    const auto [m, v, unused] = batch_moments(d, i, 2);
    const Real sigma = std::sqrt(v + kEps);
    const Real by = std::clamp<Real>(sigma / std[i], 1 / most_r[0], most_r[0]);
    const Real shift = std::clamp<Real>((m - mu[i]) / std[i], -most_d[0], most_d[0]);
    right["mean"].push_back(m), right["var"].push_back(v), right["r"].push_back(by), right["d"].push_back(shift);
    Real g = 0, g_xhat = 0;
    const auto all = [&](auto body) {
      d.each([&](int64_t, int64_t j, int64_t e) {
        if (j == i) body(e, (d.x[e] - m) / sigma);
      });
    };
    all([&](int64_t e, Real xhat) {
      d.act((xhat * by + shift) * d.weight(i) + d.bias(i), e);
      g += d.du[e] / count, g_xhat += d.du[e] * xhat / count;
      d.dw[i] += d.du[e] * (xhat * by + shift), d.db[i] += d.du[e];
    });
    all([&](int64_t e, Real xhat) { d.right_dx[e] = d.weight(i) * by / sigma * (d.du[e] - g - xhat * g_xhat); });
  }
  d.check(kMost<T>);
  d.same("mean", mean, right["mean"], kMost<T>), d.same("var", var, right["var"], kMost<T>);
  d.same("r", r, right["r"], kMost<T>), d.same("d", off, right["d"], kMost<T>);
}

template <class T>
void check_streaming(const Case& c, Real p, bool updated) {
  using A = acc_t<T>;
  Data<T> d(c, "streaming");
  const int64_t C = c.C;
  const Real count = c.N * c.S;
  const Real alpha[3] = {0.7, 0.3, 0}, beta[3] = {0.5, 0.2, 0.3};
  Buffer<A> long_term(normal(2 * C, 11, 1.5, 0.1)), short_term(normal(2 * C, 12, 1.5, 0.1)),
      counts(std::vector<double>{2, updated ? 3. : 0}), found(2 * C), used(2 * C), deviations(C), new_term(2 * C),
      new_gradients(2 * C);
  const auto memory = [&](const Real(&weights)[3], Buffer<A>& to) {
    return Memory<T>{long_term.data, short_term.data, counts.data,  to.data,
                     A(weights[0]),  A(weights[1]),   A(weights[2])};
  };
  StreamingForward<T> f{};
  f.plan = make_plan<T>(c.N, C, c.S, 1, C, c.last, c.aligned), d.give_forward(f), f.memory = memory(alpha, new_term);
  f.found = found.data, f.used = used.data, f.deviations = p == 2 ? nullptr : deviations.data;
  f.power = p, f.eps = kEps;
  streaming_norm_forward(f, d.device, d.workspace());
  StreamingBackward<T> b{};
  b.plan = f.plan, d.give_backward(b), b.memory = memory(beta, new_gradients), b.power = p;
  b.found = found.data, b.used = used.data, b.deviations = f.deviations;
  streaming_norm_backward(b, d.sums(), d.device, d.workspace());

  Reals founds(2 * C), useds(2 * C), terms(2 * C), gradients(2 * C);
  const auto arrive = [&](int64_t i, Real value, const Real(&weights)[3], Reals& to) {
    to[i] = short_term[i] + (value - short_term[i]) / (counts[0] + 1);
    return weights[0] * (updated ? long_term[i] : to[i]) + weights[1] * to[i] + weights[2] * value;
  };
  for (int64_t i = 0; i < C; ++i) {
    const auto [m, v, away] = batch_moments(d, i, p);
    founds[i] = m, founds[C + i] = std::pow(v + kEps, 1 / p);
    const Real mean = useds[i] = arrive(i, m, alpha, terms);
    const Real scale = useds[C + i] = arrive(C + i, founds[C + i], alpha, terms);
    Real by_mean = 0, by_scale = 0;
    const auto all = [&](auto body) {
      d.each([&](int64_t, int64_t j, int64_t e) {
        if (j == i) body(e, (d.x[e] - mean) / scale);
      });
    };
    all([&](int64_t e, Real xhat) {
      d.act(xhat * d.weight(i) + d.bias(i), e);
      d.dw[i] += d.du[e] * xhat, d.db[i] += d.du[e];
      by_mean -= d.du[e] * d.weight(i) / scale, by_scale -= d.du[e] * d.weight(i) * xhat / scale;
    });
    by_mean = arrive(i, by_mean, beta, gradients), by_scale = arrive(C + i, by_scale, beta, gradients);
    all([&](int64_t e, Real) {
      const Real off = d.x[e] - m, f = std::copysign(std::pow(std::fabs(off), p - 1), off);
      d.right_dx[e] = d.du[e] * d.weight(i) / scale + by_mean / count +
                      by_scale / count * std::pow(founds[C + i], 1 - p) * (f - away);
    });
  }
  d.check(kMost<T>);
  d.same("found", found, founds, kMost<T>), d.same("used", used, useds, kMost<T>);
  d.same("new short term", new_term, terms, kMost<T>);
  d.same("new short term of gradients", new_gradients, gradients, kMost<T>);
}

template <class T>
void check_all() {
  for (const Case& c : cases<T>()) {
    for (const double p : {1., 2., 3.}) check_streaming<T>(c, p, p != 3);
    check_renorm<T>(c, 1.2, 0.3);
  }
}

int main() {
  check_all<float>();
  check_all<double>();
  check_all<__nv_bfloat16>();
  for (const bool last : {false, true}) {
    check_streaming<double>({2, 4, 1100, last, "gelu", true, true, false, true}, 1.5L, true);  // several parts
    check_renorm<double>({2, 4, 1100, last, "gelu", true, true, false, true}, 3, 5);
  }
  check_renorm<float>({3, 7, 1100, false, "identity", true, true, false, true}, 3, 5);  // a block holds a channel
  check_renorm<float>({3, 7, 11000, false, "identity", true, true, false, true}, 3, 5);
  return report("cuda kernels of batch renorm and streaming norm on the cpu");
}
