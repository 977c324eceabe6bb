// The CPU kernels of filters and of NormProp's epilogue, against loops in long double.
#include "check.h"
#include "cpu/filters/filters.h"
#include "cpu/normprop/backward.h"
#include "reference.h"
#include "rounding.h"

using namespace normkernels;

template <class T, class D>
void check_filters(int64_t M, int64_t N, bool center, bool gained) {
  using C = compute_t<T>;
  constexpr double eps = 1e-5;
  auto x = rounded<T>(normal(M * N, 1, center ? 3 : 0));
  if (!center && M > 1) std::fill_n(x.begin(), N, T{});  // a filter of zeros
  const auto dy = rounded<D>(normal(M * N, 2));
  const auto gain = rounded<C>(normal(M, 3));
  std::vector<D> y(M * N);
  std::vector<T> dx(M * N);
  std::vector<C> mean(M), statistic(M), dgain(M);
  C* const means = center ? mean.data() : nullptr;
  const C* const g = gained ? gain.data() : nullptr;
  filters(FiltersForward<T, D>{M, N, x.data(), g, y.data(), means, statistic.data(), eps});
  filters(FiltersBackward<T, D>{M, N, dy.data(), x.data(), g, means, statistic.data(), dx.data(), dgain.data()});

  const std::string what = std::to_string(M) + "x" + std::to_string(N) + (center ? " centred " : " ");
  const double small = sizeof(T) == 8 ? 1e-9 : 2e-5;
  for (int64_t m = 0; m < M; ++m) {
    Real middle = 0, squares = 0, sum = 0, along = 0;
    const auto at = [&](int64_t i) { return Real(load(x[m * N + i])) - middle; };
    for (int64_t i = 0; i < N; ++i) middle += center ? Real(load(x[m * N + i])) / N : 0;
    for (int64_t i = 0; i < N; ++i) squares += at(i) * at(i);
    const Real root = std::sqrt(center ? squares / N + eps : squares), r = root > 0 ? 1 / root : 0;
    const Real scale = gained ? Real(gain[m]) * r : r;
    for (int64_t i = 0; i < N; ++i) {
      sum += center ? Real(load(dy[m * N + i])) / N : 0;
      along += load(dy[m * N + i]) * at(i) * r;
    }
    check_close(what + "statistic", m, statistic[m], center ? r : root, small, small);
    check_close(what + "dgain", m, dgain[m], along, small, small * std::sqrt(N));
    for (int64_t i = 0; i < N; ++i) {
      const Real d = load(dy[m * N + i]), want = scale * (d - sum - at(i) * r * along / (center ? N : 1));
      check_close(what + "y", m * N + i, load(y[m * N + i]), scale * at(i), kRounding<D>, 4 * small);
      check_close(what + "dx", m * N + i, load(dx[m * N + i]), want, kRounding<T>, 8 * small * double(1 + r));
    }
  }
}

struct Case {
  int64_t N, C, S;
  bool last, biased, in_place;
  const char* name;
};

template <class T>
void check_epilogue(const Case& c, bool from_output) {
  using C = compute_t<T>;
  constexpr double far = std::numeric_limits<double>::infinity(), leak = 0.125;
  const bool prelu = std::string(c.name) == "prelu";
  Activation activation = Activation::identity;
  CHECK(prelu || find_activation(c.name, activation), "%s", c.name);
  const bool gate = std::string(c.name).ends_with("relu") && !prelu;  // the first value beyond what its kink becomes
  const double low = gate ? -0.5 + (sizeof(T) == 2 ? 0x1p-9 : sizeof(T) == 4 ? 0x1p-25 : 0x1p-54) : -far;
  const Epilogue e = {prelu, activation, leak, 1.5, -0.5, gate ? 0 : -far, far, low, far};
  const int64_t count = c.N * c.C * c.S;
  const auto given = rounded<T>(normal(count, 1)), dy = rounded<T>(normal(count, 2));
  const auto bias = rounded<C>(normal(c.C, 3)), slope = rounded<C>(normal(c.C, 4, 0.2, 0.5));
  const C *const b = c.biased ? bias.data() : nullptr, *const a = prelu ? slope.data() : nullptr;
  const Grid grid = {c.N, c.C, c.S, 1, c.C};
  const Places places(grid, c.last, b || a), sums(grid, c.last, true);
  auto u = given;
  std::vector<T> other(count), du(count);
  T* const y = c.in_place ? u.data() : other.data();
  forward(places, NormPropForward<T>(places, u.data(), b, a, y, e));
  const T* const saved = from_output ? y : given.data();
  const auto found = backward(sums, NormPropBackward<T>(sums, dy.data(), saved, b, a, du.data(), e, from_output));

  const std::string what = std::string(c.name) + (c.last ? " last " : " planes ") + std::to_string(c.S) + " ";
  const double small = sizeof(T) == 8 ? 1e-9 : sizeof(T) == 4 ? 2e-5 : 4e-2;
  std::vector<Real> dbias(c.C), dslope(c.C);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t k = c.last ? i % c.C : i / c.S % c.C;
    const Real z = Real(load(given[i])) + (b ? Real(b[k]) : 0), d = load(dy[i]), s = prelu ? Real(slope[k]) : leak;
    const auto moments = [](Real v) {
      const Real pi = std::acos(-1.0L);
      return std::pair{std::sqrt((1 + v * v - (1 - v) * (1 - v) / pi) / 2), (1 - v) / std::sqrt(2 * pi)};
    };
    const auto value = [&](Real v) {
      const auto [c1, c2] = moments(v);
      return prelu ? ((z > 0 ? z : v * z) - c2) / c1 : activation == Activation::identity ? 1.5L * z - 0.5L : 0;
    };
    const Real scale = prelu ? 1 / moments(s).first : 1.5L, h = 1e-6L;
    const Real act = prelu || activation == Activation::identity ? 0 : ::activation(c.name, z, leak);
    const Real want = prelu || activation == Activation::identity ? value(s) : 1.5L * act - 0.5L;
    const Real below = prelu ? s : std::string(c.name) == "relu" ? 0 : leak;  // a difference would cross the kink
    const Real slope_of = prelu || gate ? (z > 0 ? 1 : below) : derivative(c.name, z, leak);
    check_close(what + "y", i, load(y[i]), want, kRounding<T>, small);
    check_close(what + "du", i, load(du[i]), d * slope_of * scale, kRounding<T>, small);
    dbias[k] += d * slope_of * scale;
    if (prelu) dslope[k] += d * (value(s + h) - value(s - h)) / (2 * h);
  }
  for (int64_t k = 0; k < c.C; ++k) {
    check_close(what + "dbias", k, found[k].a, dbias[k], 1e-2 * (sizeof(T) == 2), 4 * small * std::sqrt(c.N * c.S));
    if (prelu) check_close(what + "dslope", k, found[k].b, dslope[k], small, 4 * small * std::sqrt(c.N * c.S));
  }
}

template <class T>
void check_epilogues() {
  const Case cases[] = {{3, 5, 7, false, true, true, "relu"},    {2, 3, 700, false, false, false, "leaky_relu"},
                        {1, 33, 40, true, true, true, "relu"},   {1, 3, 5000, true, true, false, "leaky_relu"},
                        {9, 6, 4, false, true, false, "tanh"},   {2, 4, 600, false, true, true, "identity"},
                        {1, 300, 21, true, false, true, "tanh"}, {5, 2, 70000, false, true, true, "relu"}};
  for (const Case& c : cases) check_epilogue<T>(c, sizeof(T) > 2 || std::string(c.name) != "tanh");
  for (const char* name : {"gelu", "silu", "prelu"}) {
    check_epilogue<T>({3, 5, 7, false, true, false, name}, false);
    check_epilogue<T>({1, 33, 40, true, true, false, name}, false);
    check_epilogue<T>({2, 4, 600, false, false, false, name}, false);
  }
}

int main() {
  for (const bool center : {false, true}) {
    for (const auto& [M, N] : {std::pair<int64_t, int64_t>{5, 2}, {70, 33}, {3, 2500}, {2, 70001}, {1, 1}}) {
      check_filters<double, double>(M, N, center, true);
      check_filters<float, float>(M, N, center, false);
      check_filters<bfloat16, bfloat16>(M, N, center, true);
      check_filters<float, bfloat16>(M, N, center, true);
      check_filters<float, float16>(M, N, center, false);
    }
  }
  check_epilogues<double>();
  check_epilogues<float>();
  check_epilogues<bfloat16>();
  return report("cpu filters");
}
