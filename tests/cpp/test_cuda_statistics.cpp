// The CUDA kernels of online norm, batch renorm and streaming norm, run on the CPU, against the definitions in long
// double: one loop over samples, one line of each formula.
#include <algorithm>
#include <array>
#include <cstring>
#include <map>

#include "buffer.h"
#include "check.h"
#include "cuda/channels/batch_renorm.cuh"
#include "cuda/channels/streaming_norm.cuh"
#include "cuda/online/backward.cuh"

using namespace normkernels::cuda;
using Reals = std::vector<Real>;

constexpr double kEps = 1e-5, kLsEps = 1e-3, kSlope = 0.125;

struct Case {
  int64_t N, C, S;
  bool last;
  const char* name;  // of the activation
  bool skip, parameters, float_parameters, aligned;
};

// What every op takes and gives, and what is right.
template <class T>
struct Data {
  using A = acc_t<T>;
  Case c;
  int64_t count;
  Buffer<T> x, skip, dy, y, dx, dskip, w, b, dweight, dbias;
  Buffer<float> wide_w, wide_b;
  Affine<T> affine;
  Device device{3, 40000, nullptr};
  std::vector<std::vector<A>> workspaces;
  std::string what;
  Reals u, du, right_dx, dw, db;

  explicit Data(const Case& c, const char* what)
      : c(c),
        count(c.N * c.C * c.S),
        x(normal(count, 1, 0.5, 1.5), c.aligned),
        skip(normal(count, 2), c.aligned),
        dy(normal(count, 3), c.aligned),
        y(count, c.aligned),
        dx(count, c.aligned),
        dskip(count, c.aligned),
        w(normal(c.C, 5, 1, 0.3), c.aligned),
        b(normal(c.C, 6), c.aligned),
        dweight(c.C),
        dbias(c.C),
        wide_w(normal(c.C, 5, 1, 0.3)),
        wide_b(normal(c.C, 6)),
        affine{{}, {}, 0, A(kSlope), find_activation(c.name)},
        what(std::string(what) + " " + c.name + " " + std::to_string(c.N) + "x" + std::to_string(c.C) + "x" +
             std::to_string(c.S) + (c.last ? " last " : " ") + std::to_string(sizeof(T)) + " bytes "),
        u(count),
        du(count),
        right_dx(count),
        dw(c.C),
        db(c.C) {
    if (!c.parameters) return;
    affine.weight = {c.float_parameters ? static_cast<void*>(wide_w.data) : w.data, c.float_parameters};
    affine.bias = {c.float_parameters ? static_cast<void*>(wide_b.data) : b.data, c.float_parameters};
  }

  auto workspace() {
    return [this](int64_t n) {
      auto& room = workspaces.emplace_back(n + 4, std::numeric_limits<A>::quiet_NaN());
      A* data = room.data();
      while (reinterpret_cast<uintptr_t>(data) % 16 != 0) ++data;
      return data;
    };
  }
  Real weight(int64_t i) const { return !c.parameters ? 1 : c.float_parameters ? wide_w[i] : w[i]; }
  Real bias(int64_t i) const { return !c.parameters ? 0 : c.float_parameters ? wide_b[i] : b[i]; }
  int64_t at(int64_t n, int64_t i, int64_t s) const {
    return c.last ? (n * c.S + s) * c.C + i : (n * c.C + i) * c.S + s;
  }
  template <class F>
  void each(F f) const {
    for (int64_t n = 0; n < c.N; ++n)
      for (int64_t i = 0; i < c.C; ++i)
        for (int64_t s = 0; s < c.S; ++s) f(n, i, at(n, i, s));
  }
  template <class Params>
  void give_forward(Params& p) {
    p.x = x.data, p.skip = c.skip ? skip.data : nullptr, p.affine = affine, p.y = y.data;
  }
  template <class Params>
  void give_backward(Params& p) {
    p.dy = dy.data, p.x = x.data, p.skip = c.skip ? skip.data : nullptr, p.affine = affine;
    p.dx = dx.data, p.dskip = c.skip ? dskip.data : nullptr;
  }
  LineSums<T> sums() const { return {nullptr, dweight.data, dbias.data, false, false, 0, c.C}; }
  void act(Real z, int64_t e) {  // u and du from what comes before skip
    u[e] = z + (c.skip ? skip[e] : 0);
    du[e] = std::strcmp(c.name, "identity") == 0 ? dy[e] : dy[e] * derivative(c.name, u[e], kSlope);
  }

  // within `most` of the largest value that is right, and not finite where that is not
  template <class Got>
  void same(const char* which, const Got& got, const Reals& right, double most, double ulp = 0) const {
    Real largest = 0;
    for (const Real v : right) largest = std::isfinite(v) ? std::max(largest, std::fabs(v)) : largest;
    for (size_t i = 0; i < right.size(); ++i) {
      if (std::isfinite(right[i]))
        check_close(what + which, i, got[i], right[i], ulp, most * double(largest));
      else
        CHECK(!std::isfinite(double(got[i])), "%s%s[%zu] is finite", what.c_str(), which, i);
    }
  }
  void check(double most) const {
    const double ulp = sizeof(T) == 2 ? 0x1p-8 : 0;
    Reals right(count);
    for (int64_t e = 0; e < count; ++e) right[e] = activation(c.name, u[e], kSlope);
    same("y", y, right, most, ulp), same("dx", dx, right_dx, most, ulp);
    if (c.skip) same("dskip", dskip, du, most, ulp);
    same("dweight", dweight, dw, most, ulp), same("dbias", dbias, db, most, ulp);
  }
};

template <class T>
constexpr double kMost = sizeof(T) == 8 ? 1e-9 : 4e-5;

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
  const int64_t V = kPack<T>;
  const bool wide = sizeof(T) == 2;
  const Case cases[] = {
      {3, 5, 49, false, "silu", true, true, wide, true},
      {5, 6, 4 * V, false, "identity", false, true, wide, true},
      {2, 3, 260 * V, false, "identity", true, true, false, true},
      {2, 4 * V, 100, true, "identity", false, true, wide, true},
      {3, 9, 7, true, "gelu_tanh", true, true, wide, true},
      {37, 45, 1, false, "identity", false, true, wide, true},
      {9, 4 * V, 1, true, "tanh", true, false, wide, false},
      {1, 1, 40, false, "tanh", false, true, wide, true},
  };
  for (const Case& c : cases) {
    for (const bool training : {true, false}) {
      check_online<T>(c, {.layer_scaling = true, .training = training});
      check_online<T>(c, {.training = training, .clamp = 0.7});
    }
    check_online<T>(c, {.stable = true, .alpha = 0.5, .scale = 4});
    for (const double p : {1., 2., 3.}) check_streaming<T>(c, p, p != 3);
    check_renorm<T>(c, 1.2, 0.3);
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
    check_streaming<double>({2, 4, 1100, last, "gelu", true, true, false, true}, 1.5L, true);  // several parts
    check_renorm<double>({2, 4, 1100, last, "gelu", true, true, false, true}, 3, 5);
  }
  check_online<float>({1, 2, 8200, false, "identity", true, true, false, true}, {.layer_scaling = true});
  check_online<float>({2, 300, 6, false, "identity", false, true, false, true}, {.layer_scaling = true});
  check_renorm<float>({3, 7, 1100, false, "identity", true, true, false, true}, 3, 5);  // a block holds a channel
  check_renorm<float>({3, 7, 11000, false, "identity", true, true, false, true}, 3, 5);
  return report("cuda kernels of stateful norms on the cpu");
}
