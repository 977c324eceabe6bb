// Online Normalization on the CPU, several calls at a time, against the paper's loop over samples in long double.
#include <limits>
#include <thread>

#include "check.h"
#include "cpu/online/backward.h"
#include "reference.h"
#include "rounding.h"

using namespace normkernels;

struct Case {
  int64_t N, C, S;
  bool last, scaling;
  double clamp;      // infinite: none
  const char* name;  // of the activation
  bool skip, stable;
};

template <class T>
struct Checked {
  using C = compute_t<T>;
  using Values = std::vector<C>;
  static constexpr double kSlope = 0.125, kEps = 1e-5, kAlpha = 0.9, kDecay = 0.95;
  Case c;
  std::vector<T> x, skip, dy, y, dx, dskip;
  Values w, b, mean, rstd, xhat, square, gain;
  std::vector<double> rates, state_mean, state_var, e, u, dw, db;

  explicit Checked(const Case& c)
      : c(c),
        x(rounded<T>(normal(c.N * c.C * c.S, 1, 0.5))),
        skip(rounded<T>(normal(x.size(), 2))),
        dy(rounded<T>(normal(x.size(), 3))),
        y(x.size()),
        dx(x.size()),
        dskip(x.size()),
        w(rounded<C>(normal(c.C, 5, 1, 0.3))),
        b(rounded<C>(normal(c.C, 6, 0, 0.3))),
        mean(c.N * c.C),
        rstd(mean),
        xhat(mean),
        square(mean),
        gain(c.N),
        rates(c.N, 1 - kAlpha),
        state_mean(c.C),
        state_var(c.C, 1),
        e(normal(c.C, 7, 0, 0.1)),
        u(normal(c.C, 8, 0, 0.1)),
        dw(c.C),
        db(c.C) {
    Activation activation{};
    CHECK(find_activation(c.name, activation), "%s", c.name);
    const Channels<T> channels{
        .grid = {.N = c.N, .C = c.C, .S = c.S, .B = c.N, .G = c.C},
        .x = x.data(),
        .skip = c.skip ? skip.data() : nullptr,
        .affine = {.weight = w.data(), .bias = b.data(), .activation = activation, .slope = C(kSlope)},
        .mean = mean.data(),
        .var = nullptr,
        .rstd = rstd.data(),
        .eps = kEps};
    C* const tables = c.S == 1 ? nullptr : xhat.data();
    const Samples<T> samples{.of = channels,
                             .xhat = tables,
                             .square = tables ? square.data() : nullptr,
                             .gain = c.scaling ? gain.data() : nullptr,
                             .clamp = C(c.clamp),
                             .last = c.last || c.S == 1};
    online_forward(OnlineForward<T>{.samples = samples,
                                    .y = y.data(),
                                    .rates = rates.data(),
                                    .state_mean = state_mean.data(),
                                    .state_var = state_var.data(),
                                    .ls_eps = kEps});
    const bool wanted = c.skip && activation != Activation::identity;
    const Backward<T> sweep{.of = channels, .dy = dy.data(), .dx = dx.data(), .dskip = wanted ? dskip.data() : nullptr};
    online_backward(OnlineBackward<T>{
        .samples = samples,
        .sweep = sweep,
        .control = {.epsilon_y = e.data(), .epsilon_1 = u.data(), .dweight = dw.data(), .dbias = db.data()},
        .p = C(1 - kDecay),
        .stable = c.stable});
  }

  int64_t at(int64_t n, int64_t channel, int64_t s) const {
    return c.last ? (n * c.S + s) * c.C + channel : (n * c.C + channel) * c.S + s;
  }

  void check() const {
    const double ulp = kRounding<T>, small = sizeof(T) == 8 ? 1e-10 : 2e-5;
    const std::string what = std::string(c.name) + " " + std::to_string(c.N) + "x" + std::to_string(c.C) + "x" +
                             std::to_string(c.S) + (c.last ? " last " : " ") + std::to_string(sizeof(T)) + " bytes ";
    std::vector<Real> mu(c.C), var(c.C, 1), to_e, to_u, want_dw(c.C), want_db(c.C), z(c.C * c.S), xs(z), G(z);
    for (const double v : normal(c.C, 7, 0, 0.1)) to_e.push_back(v);
    for (const double v : normal(c.C, 8, 0, 0.1)) to_u.push_back(v);
    const Real p = 1 - Real(kDecay), size = c.C * c.S;
    for (int64_t n = 0; n < c.N; ++n) {
      std::vector<Real> r(c.C);
      Real squares = 0, product = 0;
      for (int64_t i = 0; i < c.C; ++i) {
        Real m = 0, s = 0;
        r[i] = 1 / std::sqrt(var[i] + kEps);
        for (int64_t k = 0; k < c.S; ++k) {
          const Real v = load(x[at(n, i, k)]);
          xs[i * c.S + k] = (v - mu[i]) * r[i];
          z[i * c.S + k] = xs[i * c.S + k] * w[i] + b[i];
          squares += z[i * c.S + k] * z[i * c.S + k];
          m += v / c.S;
        }
        for (int64_t k = 0; k < c.S; ++k) s += (load(x[at(n, i, k)]) - m) * (load(x[at(n, i, k)]) - m) / c.S;
        var[i] = kAlpha * var[i] + (1 - kAlpha) * s + kAlpha * (1 - kAlpha) * (m - mu[i]) * (m - mu[i]);
        mu[i] += (1 - kAlpha) * (m - mu[i]);
      }
      const Real zeta = c.scaling ? std::sqrt(squares / size + kEps) : 1;
      for (int64_t i = 0; i < c.C; ++i) {
        for (int64_t k = 0; k < c.S; ++k) {
          const Real v = z[i * c.S + k], bound = c.clamp;
          const Real out = v / zeta > bound ? bound : v / zeta < -bound ? -bound : v / zeta;
          const Real before = out + (c.skip ? Real(load(skip[at(n, i, k)])) : 0);
          const Real du = load(dy[at(n, i, k)]) * derivative(c.name, before, kSlope);
          check_close(what + "y", at(n, i, k), load(y[at(n, i, k)]), activation(c.name, before, kSlope), ulp, small);
          if (c.skip && std::string(c.name) != "identity")
            check_close(what + "dskip", at(n, i, k), load(dskip[at(n, i, k)]), du, ulp, small);
          G[i * c.S + k] = std::fabs(v / zeta) > bound ? 0 : du;
          product += G[i * c.S + k] * out / size;
        }
      }
      for (int64_t i = 0; i < c.C; ++i) {
        Real square = 0, of_e = 0, of_u = 0;
        for (int64_t k = 0; k < c.S; ++k) square += xs[i * c.S + k] * xs[i * c.S + k] / c.S;
        const Real q = c.stable && 1 / square < p ? 1 / square : p;
        for (int64_t k = 0; k < c.S; ++k) {
          const Real xhat = xs[i * c.S + k];
          const Real dz = c.scaling ? (G[i * c.S + k] - z[i * c.S + k] / zeta * product) / zeta : G[i * c.S + k];
          const Real h = w[i] * dz - q * to_e[i] * xhat, got = h * r[i] - p * to_u[i];
          want_dw[i] += dz * xhat;
          want_db[i] += dz;
          of_e += h * xhat / c.S;
          of_u += got / c.S;
          check_close(what + "dx", at(n, i, k), load(dx[at(n, i, k)]), got, ulp, 8 * small);
        }
        to_e[i] += of_e;
        to_u[i] += of_u;
      }
    }
    for (int64_t i = 0; i < c.C; ++i) {
      check_close(what + "mean", i, state_mean[i], mu[i], small, small);
      check_close(what + "var", i, state_var[i], var[i], small, small);
      check_close(what + "epsilon_y", i, e[i], to_e[i], 8 * small, 8 * small);
      check_close(what + "epsilon_1", i, u[i], to_u[i], 8 * small, 8 * small);
      check_close(what + "dweight", i, dw[i], want_dw[i], ulp, 8 * small * std::sqrt(c.N * c.S));
      check_close(what + "dbias", i, db[i], want_db[i], ulp, 8 * small * std::sqrt(c.N * c.S));
    }
  }
};

template <class T>
void check_all() {
  const double none = std::numeric_limits<double>::infinity();
  for (const bool last : {false, true}) {
    for (const Case& c :
         {Case{5, 7, 35, last, true, none, "identity", true, false},
          Case{40, 33, 1, last, true, none, "relu", true, false}, Case{9, 600, 1, last, false, 0.9, "silu", true, true},
          Case{3, 6, 49, last, false, 1.1, "leaky_relu", false, false},
          Case{2, 3, 1030, last, true, none, "gelu", false, true},
          Case{1, 2, 20001, last, false, none, "tanh", true, false}})
      Checked<T>(c).check();
  }
}

int main() {
  std::vector<std::thread> threads;  // kernels called from several threads at once, each with threads of its own
  threads.emplace_back(check_all<double>);
  threads.emplace_back(check_all<float>);
  threads.emplace_back(check_all<bfloat16>);
  threads.emplace_back(check_all<float16>);
  for (std::thread& thread : threads) thread.join();
  return report("cpu samples");
}
