// The CPU kernels of the row family, several at a time, against loops in long double.
#include <thread>

#include "check.h"
#include "cpu/rows/backward.h"
#include "cpu/rows/forward.h"
#include "reference.h"
#include "rounding.h"

using namespace normkernels;

struct Case {
  int64_t M, N;
  const char* name;  // of the activation
  bool residual, weight, bias;
};

template <class T>
std::vector<Real> exact(const std::vector<T>& values, int64_t begin, int64_t count) {
  std::vector<Real> out;
  for (int64_t i = 0; i < count; ++i) out.push_back(load(values[begin + i]));
  return out;
}

template <class T>
void check_rows(const Case& c, bool center) {
  using C = compute_t<T>;
  constexpr double slope = 0.125, eps = 1e-5;
  const int64_t M = c.M, N = c.N, stride = N + 3;
  const auto x = rounded<T>(normal(M * stride, 1, 3)), residual = rounded<T>(normal(M * N, 2));
  const auto dy = rounded<T>(normal(M * N, 3)), dsummed = rounded<T>(normal(M * N, 4));
  const auto w = rounded<C>(normal(N, 5)), b = rounded<C>(normal(N, 6));
  Activation activation{};
  CHECK(find_activation(c.name, activation), "%s", c.name);
  const Affine<C> affine{c.weight ? w.data() : nullptr, c.bias ? b.data() : nullptr, activation, C(slope)};
  std::vector<T> y(M * N), summed(M * N), dx(M * N);
  std::vector<C> mean(M), rstd(M);
  forward(RowsForward<T>{.M = M,
                         .N = N,
                         .x = x.data(),
                         .x_stride = stride,
                         .residual = c.residual ? residual.data() : nullptr,
                         .residual_stride = N,
                         .affine = affine,
                         .y = y.data(),
                         .summed = c.residual ? summed.data() : nullptr,
                         .mean = center ? mean.data() : nullptr,
                         .rstd = rstd.data(),
                         .eps = eps});
  RowsBackward<T> backwards{.M = M,
                            .N = N,
                            .dy = dy.data(),
                            .dy_stride = N,
                            .dsummed = c.residual ? dsummed.data() : nullptr,
                            .dsummed_stride = N,
                            .x = c.residual ? summed.data() : x.data(),
                            .x_stride = c.residual ? N : stride,
                            .affine = affine,
                            .mean = center ? mean.data() : nullptr,
                            .rstd = rstd.data(),
                            .dx = dx.data(),
                            .dweight = nullptr,
                            .dbias = nullptr};
  std::vector<C> dw(backwards.blocks() * N), db(backwards.blocks() * N);
  backwards.dweight = dw.data(), backwards.dbias = db.data();
  backward(backwards);

  const std::string what = std::string(c.name) + " " + std::to_string(M) + "x" + std::to_string(N) +
                           (center ? " layer " : " rms ") + std::to_string(sizeof(T)) + " bytes ";
  const double ulp = kRounding<T>, small = sizeof(T) == 8 ? 1e-9 : 2e-5;
  const auto weight = c.weight ? exact(w, 0, N) : std::vector<Real>(N, 1),
             bias = c.bias ? exact(b, 0, N) : std::vector<Real>(N);
  std::vector<Real> want_dw(N), want_db(N);
  for (int64_t m = 0; m < M; ++m) {
    const auto s = c.residual ? exact(summed, m * N, N) : exact(x, m * stride, N);
    Row want(s, center, eps, weight, bias, c.name, slope);
    want.backward(exact(dy, m * N, N), c.residual ? exact(dsummed, m * N, N) : std::vector<Real>(N), center, weight,
                  c.name, slope);
    if (center) check_close(what + "mean", m, mean[m], want.mean, small, small);
    check_close(what + "rstd", m, rstd[m], want.rstd, small, 0);
    for (int64_t n = 0; n < N; ++n) {
      const int64_t i = m * N + n;
      if (c.residual)
        check_close(what + "summed", i, load(summed[i]), Real(load(x[m * stride + n])) + load(residual[i]), ulp, 0);
      check_close(what + "y", i, load(y[i]), want.y[n], ulp, small);
      check_close(what + "dx", i, load(dx[i]), want.dx[n], ulp, 4 * small * double(1 + want.rstd));
      want_dw[n] += want.du[n] * want.xhat[n];
      want_db[n] += want.du[n];
    }
  }
  for (int64_t n = 0; n < N; ++n) {
    Real got_dw = 0, got_db = 0;
    for (int64_t p = 0; p < backwards.blocks(); ++p) got_dw += dw[p * N + n], got_db += db[p * N + n];
    check_close(what + "dweight", n, got_dw, want_dw[n], ulp, 4 * small * std::sqrt(M));
    check_close(what + "dbias", n, got_db, want_db[n], ulp, 4 * small * std::sqrt(M));
  }
}

template <class T>
void check_all() {
  const Case cases[] = {{5, 1, "identity", true, true, true},     {4, 31, "gelu", false, true, true},
                        {70, 33, "silu", true, true, false},      {3, 1025, "identity", false, false, false},
                        {3, 2500, "identity", true, false, true}, {2, 70001, "identity", true, true, true}};
  for (const Case& c : cases)
    for (const bool center : {true, false}) check_rows<T>(c, center);
}

int main() {
  std::vector<std::thread> threads;  // kernels called from several threads at once, each with threads of its own
  threads.emplace_back(check_all<double>);
  threads.emplace_back(check_all<float>);
  threads.emplace_back(check_all<bfloat16>);
  threads.emplace_back(check_all<float16>);
  for (std::thread& thread : threads) thread.join();
  for (const char* name : kActivationNames) {
    check_rows<double>({3, 40, name, false, true, true}, true);
    check_rows<float>({3, 40, name, false, true, true}, true);
  }
  return report("cpu kernels");
}
