// The CUDA kernels of weight norm, weight standardisation and normprop, run on the CPU, against loops in long double.
#include <cstring>
#include <map>

#include "buffer.h"
#include "check.h"
#include "cuda/filters/backward.cuh"
#include "cuda/filters/forward.cuh"
#include "cuda/filters/project.cuh"
#include "cuda/normprop/backward.cuh"
#include "cuda/normprop/forward.cuh"

using namespace normkernels::cuda;

constexpr double kEps = 1e-5, kLeak = 0.125, kScale = 1.25, kShift = -0.5;
const Device kDevice{3, 400000, nullptr};

template <class T>
constexpr double kUlp = sizeof(T) == 2   ? 0x1p-8
                        : sizeof(T) == 4 ? 0x1p-23
                                         : 0x1p-52;
template <class T>
constexpr double kSmall = sizeof(acc_t<T>) == 8 ? 1e-9 : 4e-5;

// Workspaces that live as long as this.
template <class T>
struct Room {
  std::vector<std::vector<acc_t<T>>> all;
  auto operator()(int64_t n) {
    auto& room = all.emplace_back(n + 4, std::numeric_limits<acc_t<T>>::quiet_NaN());
    acc_t<T>* data = room.data();
    while (reinterpret_cast<uintptr_t>(data) % 16 != 0) ++data;
    return data;
  }
};

// A parameter in T or in float, or absent.
template <class T>
struct Numbers {
  Buffer<T> own;
  Buffer<float> wide;
  bool present, is_float;

  Numbers(const std::vector<double>& values, bool present, bool is_float, bool aligned = true)
      : own(values, aligned), wide(values, aligned), present(present), is_float(is_float) {}
  void* data() const { return !present ? nullptr : is_float ? static_cast<void*>(wide.data) : own.data; }
  Parameter parameter() const { return {data(), is_float}; }
  Real operator[](int64_t i) const { return is_float ? wide[i] : own[i]; }
};

// x in X, y in T: weight norm, or CENTER weight standardisation; row 1 is of zeros
template <bool CENTER, class T, class X>
void check_filters(int64_t M, int64_t N, bool gained, bool wide_gain, bool aligned) {
  using A = acc_t<T>;
  const std::string what = std::string(CENTER ? "standardisation " : "weight norm ") + std::to_string(M) + "x" +
                           std::to_string(N) + " " + std::to_string(sizeof(T)) + " bytes ";
  auto values = normal(M * N, 1, 0.5, 2);
  for (int64_t i = 0; M > 1 && i < N; ++i) values[N + i] = 0;
  const bool is_float = wide_gain || (sizeof(T) == 2 && sizeof(X) == 4);
  const Buffer<X> x(values, aligned);
  const Buffer<T> dy(normal(M * N, 2), aligned);
  const Numbers<T> gain(normal(M, 3), gained, is_float);
  const Numbers<T> dgain(std::vector<double>(M, NAN), gained, is_float);
  Buffer<T> y(M * N, aligned);
  Buffer<X> dx(M * N, aligned);
  Buffer<A> mean(M), statistic(M);
  Room<T> room;
  FiltersForward<T, X> f{};
  f.filters.M = M, f.filters.N = N, f.filters.packed = aligned && N % kPack<T> == 0;
  f.x = x.data, f.gain = gain.parameter(), f.y = y.data, f.mean = mean.data, f.statistic = statistic.data, f.eps = kEps;
  filters_forward<CENTER>(f, kDevice, [&](int64_t n) { return room(n); });
  FiltersBackward<T, X> b{};
  b.filters = f.filters, b.dy = dy.data, b.x = x.data, b.gain = f.gain, b.mean = mean.data;
  b.statistic = statistic.data, b.dx = dx.data, b.dgain = dgain.data(), b.dgain_is_float = is_float;
  filters_backward<CENTER>(b, kDevice, [&](int64_t n) { return room(n); });

  for (int64_t m = 0; m < M; ++m) {
    Real mu = 0, squares = 0, along = 0, sum = 0;
    for (int64_t i = m * N; i < m * N + N; ++i) mu += CENTER ? x[i] / N : 0;
    for (int64_t i = m * N; i < m * N + N; ++i) squares += (x[i] - mu) * (x[i] - mu);
    const Real kept = CENTER ? 1 / std::sqrt(squares / N + kEps) : std::sqrt(squares);
    const Real r = CENTER ? kept : kept > 0 ? 1 / kept : 0, g = gained ? gain[m] : 1;
    for (int64_t i = m * N; i < m * N + N; ++i) along += dy[i] * (x[i] - mu) * r, sum += dy[i];
    const Real c0 = CENTER ? along / N : along, c1 = CENTER ? sum / N : 0;
    if (CENTER) check_close(what + "mean", m, mean[m], mu, kSmall<T>, kSmall<T>);
    check_close(what + "statistic", m, statistic[m], kept, kSmall<T>, 0);
    if (gained)
      check_close(what + "dgain", m, dgain[m], along, is_float ? 0 : kUlp<T>, 4 * kSmall<T> * std::sqrt(double(N)));
    for (int64_t i = m * N; i < m * N + N; ++i) {
      const Real xhat = (x[i] - mu) * r, dx_want = g * r * (dy[i] - c1 - xhat * c0);
      check_close(what + "y", i, y[i], g * xhat, kUlp<T>, kSmall<T>);
      check_close(what + "dx", i, dx[i], dx_want, kUlp<X>, 4 * kSmall<T> * double(1 + std::fabs(g * r)));
    }
  }
}

// More tensors than one launch takes, of filters of part of a warp, of a block, and longer ones.
template <class T>
void check_project() {
  const int64_t V = kPack<T>, lengths[] = {4 * V, 1, 27, 140 * V, 5, 300, 2200 * V};
  std::vector<Buffer<T>> tensors, before;
  const auto rows = [&](int t) { return 1 + t % 11; };
  const auto length = [&](int t) { return lengths[t < 7 ? t : t % 3]; };
  const auto aligned = [](int t) { return t % 5 != 1; };
  for (int t = 0; t < kMostProjected + 9; ++t) {
    auto values = normal(rows(t) * length(t), t);
    if (t % 3 == 0) std::fill_n(values.begin(), length(t), 0);
    tensors.emplace_back(values, aligned(t)), before.emplace_back(values);
  }
  filters_project<T>(tensors.size(), kDevice, [&](int t) {
    return ProjectedTensor<T>{tensors[t].data, rows(t), length(t), 0, 0, aligned(t) && length(t) % V == 0};
  });
  for (size_t t = 0; t < tensors.size(); ++t)
    for (int64_t m = 0, N = length(t); m < rows(t); ++m) {
      Real squares = 0;
      for (int64_t i = m * N; i < m * N + N; ++i) squares += before[t][i] * before[t][i];
      const Real r = squares > 0 ? 1 / std::sqrt(squares) : 0;
      for (int64_t i = m * N; i < m * N + N; ++i)
        check_close("project", i, tensors[t][i], before[t][i] * r, kUlp<T>, kSmall<T>);
    }
}

struct Case {
  int64_t N, C, S;
  bool last;
  const char* name;  // of the activation
  bool from_output, bias, wide, aligned;
  bool sums = true;  // dbias and dslope wanted
};

Real prelu(Real z, Real a) {
  const Real pi = std::acos(-1.0L), c1 = std::sqrt((1 + a * a - (1 - a) * (1 - a) / pi) / 2);
  return ((z > 0 ? z : a * z) - (1 - a) / std::sqrt(2 * pi)) / c1;
}

template <class T>
void check_normprop(const Case& c) {
  using A = acc_t<T>;
  const std::map<std::string, std::pair<double, double>> all_kinks = {{"relu", {0, INFINITY}},
                                                                      {"leaky_relu", {0, INFINITY}},
                                                                      {"relu6", {0, 6}},
                                                                      {"hardtanh", {-1, 1}},
                                                                      {"hardsigmoid", {0, 1}}};
  const auto found = all_kinks.find(c.name);
  const auto [from, to] = found == all_kinks.end() ? std::pair(-double(INFINITY), double(INFINITY)) : found->second;
  const double low = from * kScale + kShift + 0.25, high = to * kScale + kShift - 0.25;
  const bool slopes = std::strcmp(c.name, "prelu") == 0;
  const int64_t count = c.N * c.C * c.S;
  Buffer<T> u(normal(count, 1, 0, 2), c.aligned), y(count, c.aligned), du(count, c.aligned);
  const Buffer<T> before(normal(count, 1, 0, 2)), dy(normal(count, 2), c.aligned);
  const Numbers<T> bias(normal(c.C, 3), c.bias, c.wide, c.aligned), slope(normal(c.C, 4), slopes, c.wide, c.aligned);
  const std::vector<double> nothing(c.C, NAN);
  const Numbers<T> dbias(nothing, c.sums, c.wide), dslope(nothing, c.sums && slopes, c.wide);

  NormpropForward<T> f{make_plan<T>(c.N, c.C, c.S, 1, c.C, c.last, c.aligned), u.data, bias.parameter(),
                       slope.parameter()};
  f.epilogue = make_epilogue<A>(c.name, kLeak, kScale, kShift, low, high, false);
  f.epilogue.kink_low = from, f.epilogue.kink_high = to, f.y = c.from_output ? u.data : y.data;
  normprop_forward(f, kDevice);
  NormpropBackward<T> b{f.plan, dy.data, u.data, c.from_output ? Parameter{} : f.bias, f.slope};
  b.epilogue = make_epilogue<A>(c.name, kLeak, kScale, kShift, low, high, c.from_output), b.du = du.data;
  Room<T> room;
  normprop_backward(b, {nullptr, dbias.data(), dslope.data(), c.wide, c.wide, 0, c.C}, kDevice,
                    [&](int64_t n) { return room(n); });

  const std::string what = std::string("normprop ") + c.name + " " + std::to_string(c.N) + "x" + std::to_string(c.C) +
                           "x" + std::to_string(c.S) + (c.last ? " last " : " ") + std::to_string(sizeof(T)) +
                           " bytes ";
  const Real h = 1e-6L;
  std::vector<Real> db(c.C), ds(c.C);
  for (int64_t e = 0; e < count; ++e) {
    const int64_t i = c.last ? e % c.C : e / c.S % c.C;
    const Real z = before[e] + (c.bias ? bias[i] : 0), a = slope[i], act = activation(c.name, z, kLeak);
    Real want = act * kScale + kShift, by_u = kScale * derivative(c.name, z, kLeak);
    if (act > from && act < to) want = std::min<Real>(std::max<Real>(want, low), high);
    if (slopes) {
      want = prelu(z, a), by_u = (prelu(z + h, a) - prelu(z - h, a)) / (2 * h);
      ds[i] += dy[e] * (prelu(z, a + h) - prelu(z, a - h)) / (2 * h);
    }
    db[i] += dy[e] * by_u;
    check_close(what + "y", e, (c.from_output ? u : y)[e], want, kUlp<T>, kSmall<T>);
    check_close(what + "du", e, du[e], dy[e] * by_u, kUlp<T>, 4 * kSmall<T>);
  }
  for (int64_t i = 0; c.sums && i < c.C; ++i) {
    const double ulp = c.wide ? 0 : kUlp<T>, most = 4 * kSmall<T> * std::sqrt(double(c.N * c.S));
    check_close(what + "dbias", i, dbias[i], db[i], ulp, most);
    if (slopes) check_close(what + "dslope", i, dslope[i], ds[i], ulp, most);
  }
}

void check_infinite() {
  Buffer<float> u(std::vector<double>{-INFINITY, NAN, INFINITY, -1});
  NormpropForward<float> f{make_plan<float>(1, 1, 4, 1, 1, false, true), u.data, {}, {}};
  f.epilogue = make_epilogue<float>("relu", 0, kScale, kShift, kShift, INFINITY, false);
  f.epilogue.kink_high = INFINITY, f.y = u.data;
  normprop_forward(f, kDevice);
  CHECK(u[0] == kShift && std::isnan(u[1]) && u[2] == INFINITY && u[3] == kShift, "relu of infinities and NaN");
}

template <class T, class X = T>
void check_all_filters() {
  const int64_t V = kPack<T>, most = kFilterLength<T>;
  for (const auto& [M, N] : std::vector<std::pair<int64_t, int64_t>>{
           {5, 1}, {37, 27}, {9, 4 * V}, {3, 150 * V}, {2, 1000 * V + 3}, {2, most}, {7, most + V}, {2, most + 5}})
    for (const bool aligned : {true, false}) {
      if (M == 2 && !aligned) continue;
      check_filters<false, T, X>(M, N, true, sizeof(T) == 2 && aligned, aligned);
      if constexpr (std::is_same_v<T, X>) check_filters<true, T, T>(M, N, aligned, sizeof(T) == 2, aligned);
    }
}

template <class T>
void check_all() {
  const int64_t V = kPack<T>;
  const bool wide = sizeof(T) == 2;
  check_all_filters<T>();
  check_project<T>();
  for (const Case& c : {
           Case{2, 5, 49, false, "relu", true, true, wide, true},
           Case{5, 6, 4 * V, false, "leaky_relu", true, true, wide, true},
           Case{2, 3, 260 * V, false, "relu6", true, true, wide, true},
           Case{2, 3, 16 * V, false, "prelu", false, true, wide, true},
           Case{1, 4 * V, 600, true, "prelu", false, true, wide, true},
           Case{1, 4 * V, 100, true, "relu", true, true, wide, true},
           Case{3, 9, 7, true, "hardsigmoid", true, true, wide, true},
           Case{3, 2 * V, 7, true, "hardtanh", true, true, wide, false, false},
           Case{3, 3, 7, false, "prelu", false, false, false, false, false},
           Case{1, 12 * V, 40, true, "gelu", false, true, false, true},
       })
    check_normprop<T>(c);
}

int main() {
  check_all<float>();
  check_all<double>();
  check_all<__nv_bfloat16>();
  check_infinite();
  check_all_filters<__half, float>();
  check_all_filters<__nv_bfloat16, float>();
  for (const char* name : {"tanh", "sigmoid", "elu", "selu", "softplus", "softsign", "identity"})
    for (const bool last : {false, true}) {
      check_normprop<double>({2, 8, 40, last, name, true, true, false, true});
      check_normprop<float>({2, 8, 40, last, name, true, true, false, true});
    }
  for (const char* name : kActivationNames) check_normprop<double>({2, 3, 40, false, name, false, true, false, true});
  return report("cuda kernels of filters on the cpu");
}
