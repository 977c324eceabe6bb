// The CUDA kernels of normprop, run on the CPU, against loops in long double.
#include <cstring>
#include <map>

#include "buffer.h"
#include "check.h"
#include "cuda/normprop/backward.cuh"
#include "cuda/normprop/forward.cuh"

using namespace normkernels::cuda;

constexpr double kLeak = 0.125, kScale = 1.25, kShift = -0.5;
const Device kDevice{3, 400000, nullptr};

template <class T>
constexpr double kSmall = sizeof(acc_t<T>) == 8 ? 1e-9 : 4e-5;

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

template <class T>
void check_all() {
  const int64_t V = kPack<T>;
  const bool wide = sizeof(T) == 2;
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
  for (const char* name : {"tanh", "sigmoid", "elu", "selu", "softplus", "softsign", "identity"})
    for (const bool last : {false, true}) {
      check_normprop<double>({2, 8, 40, last, name, true, true, false, true});
      check_normprop<float>({2, 8, 40, last, name, true, true, false, true});
    }
  for (const char* name : kActivationNames) check_normprop<double>({2, 3, 40, false, name, false, true, false, true});
  return report("cuda kernels of normprop on the cpu");
}
