// The CUDA kernels of online norm, run on the CPU.
#include "cuda/online/backward.cuh"
#include "statistics.h"

struct Online {
  bool layer_scaling = false, stable = false, training = true, broken = false;
  double clamp = INFINITY, alpha = 0.9, scale = 1;  // scale: of x
  double rate = 0.1;
};

// The moments of sample n in channel i.
template <class T>
std::pair<Real, Real> moments(const Data<T>& d, int64_t n, int64_t i) {
  Real m = 0, v = 0;
  for (int64_t s = 0; s < d.c.S; ++s) m += d.x[d.at(n, i, s)] / d.c.S;
  for (int64_t s = 0; s < d.c.S; ++s) v += (d.x[d.at(n, i, s)] - m) * (d.x[d.at(n, i, s)] - m) / d.c.S;
  return {m, v};
}

template <class T>
void check_online(const Case& c, const Online& o) {
  using A = acc_t<T>;
  Data<T> d(c, "online");
  const int64_t N = c.N, C = c.C, S = c.S, NC = N * C;
  for (int64_t e = 0; e < d.count; ++e) d.x.data[e] = narrow<T>(widen(d.x.data[e]) * A(o.scale));
  if (o.broken) {  // one sample of one channel each
    d.x.data[d.at(N / 2, 0, S / 2)] = narrow<T>(std::numeric_limits<A>::infinity());
    d.x.data[d.at(0, C - 1, 0)] = narrow<T>(std::numeric_limits<A>::quiet_NaN());
    d.dy.data[d.at(N / 2, C / 2, 0)] = narrow<T>(std::numeric_limits<A>::infinity());
  }
  Buffer<A> mu(normal(C, 11)), var(normal(C, 12, 1.5, 0.1)), e_y(normal(C, 13)), e_1(normal(C, 14)), new_mu(C),
      new_var(C), new_y(C), new_1(C), mean(NC), rstd(NC), xhat_mean(NC), xhat_square(NC), gain(N);
  std::vector<double> rates(N);
  for (int64_t n = 0; n < N; ++n) rates[n] = o.rate / (1 + 0.1 * n);
  const bool tables = S > 1 && (o.training || o.layer_scaling);

  OnlineForward<T> f{};
  f.plan = make_plan<T>(N, C, S, N, C, c.last, c.aligned), d.give_forward(f);
  f.running_mean = mu.data, f.running_var = var.data, f.rates = o.training ? rates.data() : nullptr;
  f.mean = mean.data, f.rstd = rstd.data, f.eps = kEps, f.ls_eps = kLsEps, f.clamp = o.clamp;
  if (tables) f.xhat_mean = xhat_mean.data, f.xhat_square = xhat_square.data;
  if (o.layer_scaling) f.gain = gain.data;
  if (o.training) f.new_mean = new_mu.data, f.new_var = new_var.data;
  online_norm_forward(f, d.device, d.workspace());

  OnlineBackward<T> p{};
  p.plan = f.plan, d.give_backward(p), p.tables = {f.mean, f.rstd, f.gain, f.clamp}, p.masked = true;
  p.xhat_mean = f.xhat_mean, p.xhat_square = f.xhat_square, p.p = 1 - o.alpha, p.stable = o.stable;
  if (o.training) p.epsilon_y = e_y.data, p.epsilon_1 = e_1.data;
  if (o.training) p.new_epsilon_y = new_y.data, p.new_epsilon_1 = new_1.data;
  online_norm_backward(p, d.sums(), d.device, d.workspace());

  Reals met(NC), inverse(NC), ms(C), vs(C), ys(C), es(C), g(d.count), xhat(d.count);
  for (int64_t i = 0; i < C; ++i) ms[i] = mu[i], vs[i] = var[i], ys[i] = e_y[i], es[i] = e_1[i];
  for (int64_t n = 0; n < N; ++n) {
    Real square = 0, inner = 0;
    const auto all = [&](auto body) {
      for (int64_t i = 0; i < C; ++i)
        for (int64_t s = 0; s < S; ++s) body(i, d.at(n, i, s));
    };
    for (int64_t i = 0; i < C; ++i) {
      met[n * C + i] = ms[i], inverse[n * C + i] = 1 / std::sqrt(vs[i] + kEps);
      for (int64_t s = 0; s < S; ++s) xhat[d.at(n, i, s)] = (d.x[d.at(n, i, s)] - ms[i]) * inverse[n * C + i];
      const auto [m, v] = moments(d, n, i);
      if (!o.training || !std::isfinite(m) || !std::isfinite(v)) continue;
      vs[i] += rates[n] * (v - vs[i]) + rates[n] * (1 - rates[n]) * (m - ms[i]) * (m - ms[i]);
      ms[i] += rates[n] * (m - ms[i]);
    }
    const auto z = [&](int64_t i, int64_t e) { return xhat[e] * d.weight(i) + d.bias(i); };
    all([&](int64_t i, int64_t e) { square += z(i, e) * z(i, e) / (C * S); });
    const Real by = o.layer_scaling ? 1 / std::sqrt(square + kLsEps) : 1;
    const auto out = [&](int64_t i, int64_t e) { return std::clamp<Real>(z(i, e) * by, -o.clamp, o.clamp); };
    all([&](int64_t i, int64_t e) {
      d.act(out(i, e), e);
      g[e] = d.du[e] * (std::fabs(z(i, e)) <= o.clamp);
      inner += g[e] * out(i, e) / (C * S);
    });
    all([&](int64_t i, int64_t e) {
      if (o.layer_scaling) g[e] = (g[e] - out(i, e) * inner) * by;
      d.dw[i] += g[e] * xhat[e], d.db[i] += g[e];
      g[e] *= d.weight(i);
    });
    for (int64_t i = 0; i < C; ++i) {
      Real q = 0, g_mean = 0, g_xhat = 0, h_xhat = 0, dx_mean = 0;
      const auto sample = [&](auto body) {
        for (int64_t s = 0; s < S; ++s) body(d.at(n, i, s));
      };
      sample([&](int64_t e) { q += xhat[e] * xhat[e] / S, g_mean += g[e] / S, g_xhat += g[e] * xhat[e] / S; });
      const Real p_t = o.stable ? std::min<Real>(1 - o.alpha, 1 / q) : 1 - o.alpha;
      sample([&](int64_t e) {
        const Real h = o.training ? g[e] - p_t * ys[i] * xhat[e] : g[e];
        d.right_dx[e] = h * inverse[n * C + i] - (o.training ? (1 - o.alpha) * es[i] : 0);
        h_xhat += h * xhat[e] / S, dx_mean += d.right_dx[e] / S;
      });
      if (o.training && std::isfinite(q) && std::isfinite(g_mean) && std::isfinite(g_xhat))
        ys[i] += h_xhat, es[i] += dx_mean;
    }
  }
  d.check(kMost<T>);
  d.same("mean", mean, met, kMost<T>), d.same("rstd", rstd, inverse, kMost<T>);
  if (!o.training) return;
  d.same("new mean", new_mu, ms, kMost<T>), d.same("new var", new_var, vs, kMost<T>);
  d.same("new epsilon_y", new_y, ys, kMost<T>), d.same("new epsilon_1", new_1, es, kMost<T>);
}

template <class T>
void check_all() {
  for (const Case& c : cases<T>()) {
    for (const bool training : {true, false}) {
      check_online<T>(c, {.layer_scaling = true, .training = training});
      check_online<T>(c, {.training = training, .clamp = 0.7});
    }
    check_online<T>(c, {.stable = true, .alpha = 0.5, .scale = 4});
  }
}

int main() {
  check_all<float>();
  check_all<double>();
  check_all<__nv_bfloat16>();
  for (const bool last : {false, true}) {
    for (const int64_t S : {1, 24}) {  // later samples, other channels and the state stay sound
      check_online<float>({70, 5, S, last, "identity", true, true, false, true}, {.broken = true});
      check_online<double>({9, 5, S, last, "identity", true, true, false, true}, {.broken = true, .alpha = 0.5});
    }
    check_online<double>({3, 4, 20, last, "relu", true, true, false, true}, {.rate = 0});  // statistics stay
    check_online<double>({3, 4, 20, last, "relu", true, true, false, true}, {.alpha = 1});
  }
  check_online<float>({1, 2, 8200, false, "identity", true, true, false, true}, {.layer_scaling = true});
  check_online<float>({2, 300, 6, false, "identity", false, true, false, true}, {.layer_scaling = true});
  return report("cuda kernels of online norm on the cpu");
}
