// Cells of recurrent layers on the CPU, against long double and its differences.
#include "check.h"
#include "cpu/recurrent/tiles.h"

using namespace normkernels;
using Real = long double;

Real sigmoid_of(Real u) { return 1 / (1 + std::exp(-u)); }

template <class C>
std::vector<C> numbers(int64_t n, unsigned seed) {
  const auto values = normal(n, seed);
  return {values.begin(), values.end()};
}

// The derivative of f at x by a central difference, good to 1e-11 or so
template <class F>
Real slope(const F& f, Real x) {
  const Real h = 1e-6L;
  return (f(x + h) - f(x - h)) / (2 * h);
}

template <class C>
constexpr double kSmall = sizeof(C) == 8 ? 1e-9 : 3e-6;

template <class C>
void check_rnn(bool relu, int64_t n) {
  const auto z = numbers<C>(n, 1), dy = numbers<C>(n, 2);
  std::vector<C> y(n), dz(n);
  rnn_tile(relu, z.data(), y.data(), n);
  rnn_backward_tile(relu, dy.data(), y.data(), dz.data(), n);
  for (int64_t k = 0; k < n; k++) {
    const auto f = [&](Real u) { return relu ? std::max(u, Real(0)) : std::tanh(u); };
    check_close("rnn y", k, y[k], f(z[k]), kSmall<C>, kSmall<C>);
    check_close("rnn dz", k, dz[k], dy[k] * slope(f, z[k]), kSmall<C>, 4 * kSmall<C>);
  }
}

template <class C>
void check_lstm(int64_t n) {
  const auto z = numbers<C>(4 * n, 3), before = numbers<C>(n, 4), dh = numbers<C>(n, 5), more = numbers<C>(n, 6);
  std::vector<C> gates = z, c(n), h(n), dm(n), dz(4 * n), dbefore(n);
  lstm_tile(gates.data(), before.data(), c.data(), n);
  lstm_output_tile(&gates[3 * n], c.data(), h.data(), n);
  lstm_output_backward_tile(dh.data(), &gates[3 * n], c.data(), dm.data(), &dz[3 * n], n);
  for (int64_t k = 0; k < n; k++) dm[k] += more[k];
  lstm_backward_tile(gates.data(), dm.data(), before.data(), dz.data(), dbefore.data(), n);
  for (int64_t k = 0; k < n; k++) {
    Real in[5] = {z[k], z[n + k], z[2 * n + k], z[3 * n + k], before[k]};
    const auto cell = [&] { return sigmoid_of(in[1]) * in[4] + sigmoid_of(in[0]) * std::tanh(in[2]); };
    const auto out = [&] { return sigmoid_of(in[3]) * std::tanh(cell()); };
    check_close("lstm c", k, c[k], cell(), kSmall<C>, kSmall<C>);
    check_close("lstm h", k, h[k], out(), kSmall<C>, kSmall<C>);
    for (int i = 0; i < 5; i++) {
      const Real at = in[i];
      const auto loss = [&](Real v) {
        in[i] = v;
        return dh[k] * out() + more[k] * cell();
      };
      const Real want = slope(loss, at);
      in[i] = at;
      check_close("lstm gradient", i, i < 4 ? dz[i * n + k] : dbefore[k], want, 4 * kSmall<C>, 8 * kSmall<C>);
    }
  }
}

template <class C>
void check_gru(bool input, int64_t n) {
  const auto q = numbers<C>(3 * n, 7), p = numbers<C>(3 * n, 8), before = numbers<C>(n, 9), dh = numbers<C>(n, 10);
  std::vector<C> gates = q, h(n), dq(3 * n), dp(n), direct(n);
  gru_tile(gates.data(), input ? p.data() : nullptr, before.data(), h.data(), n);
  gru_backward_tile(gates.data(), &q[2 * n], before.data(), dh.data(), dq.data(), dp.data(), direct.data(), n);
  for (int64_t k = 0; k < n; k++) {
    Real in[5] = {q[k], q[n + k], q[2 * n + k], before[k], input ? p[2 * n + k] : 0};
    const auto out = [&] {
      const Real r = sigmoid_of(in[0] + (input ? p[k] : 0)), z = sigmoid_of(in[1] + (input ? p[n + k] : 0));
      return (1 - z) * std::tanh(in[4] + r * in[2]) + z * in[3];
    };
    check_close("gru h", k, h[k], out(), kSmall<C>, kSmall<C>);
    for (int i = 0; i < 5; i++) {
      const Real at = in[i];
      const auto loss = [&](Real v) {
        in[i] = v;
        return dh[k] * out();
      };
      const Real want = slope(loss, at);
      in[i] = at;
      const C got = i < 3 ? dq[i * n + k] : i == 3 ? direct[k] : dp[k];
      check_close("gru gradient", i, got, want, 4 * kSmall<C>, 8 * kSmall<C>);
    }
  }
}

template <class C>
void check_all() {
  for (const int64_t n : {1, 7, 64, 1000}) {
    for (const bool flag : {false, true}) {
      check_rnn<C>(flag, n);
      check_gru<C>(flag, n);
    }
    check_lstm<C>(n);
  }
}

int main() {
  check_all<float>();
  check_all<double>();
  return report("recurrent cells");
}
