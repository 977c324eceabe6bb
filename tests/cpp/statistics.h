// What the CUDA kernels of online norm, batch renorm and streaming norm are given, and what is right of it, by the
// definitions in long double: one loop over samples, one line of each formula.
#pragma once

#include <algorithm>
#include <array>
#include <cstring>
#include <map>

#include "buffer.h"
#include "check.h"
#include "cuda/channels/plan.cuh"

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

// Shapes, layouts and activations that every op meets.
template <class T>
std::vector<Case> cases() {
  const int64_t V = kPack<T>;
  const bool wide = sizeof(T) == 2;
  return {
      {3, 5, 49, false, "silu", true, true, wide, true},
      {5, 6, 4 * V, false, "identity", false, true, wide, true},
      {2, 3, 260 * V, false, "identity", true, true, false, true},
      {2, 4 * V, 100, true, "identity", false, true, wide, true},
      {3, 9, 7, true, "gelu_tanh", true, true, wide, true},
      {37, 45, 1, false, "identity", false, true, wide, true},
      {9, 4 * V, 1, true, "tanh", true, false, wide, false},
      {1, 1, 40, false, "tanh", false, true, wide, true},
  };
}
