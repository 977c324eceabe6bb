#include "replay/small.h"

#include <cmath>
#include <cstring>
#include <map>

#include "cpu/base/simd.h"

namespace normkernels::replay {
namespace {

// out[i] = f(a[i], b[i])
template <class T, class Out, class F>
NK_INLINE void map(int64_t n, Out* out, const Read& a, const Read& b, const F& f) {
  const T *p = static_cast<const T*>(a.data), *q = static_cast<const T*>(b.data);
  if (a.count == 1 && b.count == 1) {
    const Out value = f(*p, *q);
    for (int64_t i = 0; i < n; i++) out[i] = value;
  } else if (b.count == 1) {
    const T value = *q;
    for (int64_t i = 0; i < n; i++) out[i] = f(p[i], value);
  } else if (a.count == 1) {
    const T value = *p;
    for (int64_t i = 0; i < n; i++) out[i] = f(value, q[i]);
  } else {
    for (int64_t i = 0; i < n; i++) out[i] = f(p[i], q[i]);
  }
}

// out[i] = a[i], as a number of another kind
template <class T, class Out>
NK_INLINE void convert(int64_t n, void* out, const Read& a) {
  map<T>(n, static_cast<Out*>(out), a, a, [](T x, T) NK_INLINED { return static_cast<Out>(x); });
}

template <class T>
NK_INLINE T first(const Read& r) {
  return *static_cast<const T*>(r.data);
}

template <class T>
NK_INLINE void choose(int64_t n, T* out, const std::array<Read, 3>& in) {
  const bool* condition = static_cast<const bool*>(in[0].data);
  const T *p = static_cast<const T*>(in[1].data), *q = static_cast<const T*>(in[2].data);
  const int64_t c = in[0].count, a = in[1].count, b = in[2].count;
  for (int64_t i = 0; i < n; i++) out[i] = condition[i % c] ? p[i % a] : q[i % b];
}

// As torch: from the nearer end, in one rounding where the instruction set has it.
template <class T>
NK_INLINE void lerp(int64_t n, T* out, const std::array<Read, 3>& in) {
  const T weight = first<T>(in[2]);
  const bool low = std::abs(weight) < T(0.5);
  const T factor = low ? weight : weight - T(1);
  map<T>(n, out, in[0], in[1], [=](T a, T b) NK_INLINED { return factor * (b - a) + (low ? a : b); });
}

template <class T>
NK_CLONES void run_as(const Small& s, void* to, const std::array<Read, 3>& in) {
  T* out = static_cast<T*>(to);
  bool* truth = static_cast<bool*>(to);
  const auto& [a, b, c] = in;
  switch (s.op) {
    case Small::Op::add:
      return map<T>(s.n, out, a, b, [](T x, T y) NK_INLINED { return x + y; });
    case Small::Op::sub:
      return map<T>(s.n, out, a, b, [](T x, T y) NK_INLINED { return x - y; });
    case Small::Op::mul:
      return map<T>(s.n, out, a, b, [](T x, T y) NK_INLINED { return x * y; });
    case Small::Op::lt:
      return map<T>(s.n, truth, a, b, [](T x, T y) NK_INLINED { return x < y; });
    case Small::Op::gt:
      return map<T>(s.n, truth, a, b, [](T x, T y) NK_INLINED { return x > y; });
    case Small::Op::where:
      return choose(s.n, out, in);
    case Small::Op::copy:
      return convert<T, T>(s.n, out, a);
    case Small::Op::to_float:
      return convert<T, float>(s.n, out, a);
    case Small::Op::to_double:
      return convert<T, double>(s.n, out, a);
    default:
      break;
  }
  if constexpr (std::is_floating_point_v<T>) {
    switch (s.op) {
      case Small::Op::div:
        return map<T>(s.n, out, a, b, [](T x, T y) NK_INLINED { return x / y; });
      case Small::Op::lerp:
        return lerp(s.n, out, in);
      case Small::Op::clamp: {
        const T low = first<T>(b), high = first<T>(c);
        return map<T>(s.n, out, a, a, [=](T x, T) NK_INLINED {
          const T above = x < low ? low : x;
          return above > high ? high : above;
        });
      }
      case Small::Op::abs:
        return map<T>(s.n, out, a, a, [](T x, T) NK_INLINED { return std::abs(x); });
      default:
        break;
    }
  }
  TORCH_CHECK(false, "normkernels: no such op on integers");
}

}  // namespace

std::optional<Small::Op> Small::find(const std::string& name) {
  static const std::map<std::string, Op> names = {
      {"add", Op::add},
      {"sub", Op::sub},
      {"mul", Op::mul},
      {"div", Op::div},
      {"lerp", Op::lerp},
      {"clamp", Op::clamp},
      {"abs", Op::abs},
      {"lt", Op::lt},
      {"where", Op::where},
      {"gt", Op::gt},
      {"copy", Op::copy},
      {"to_float32", Op::to_float},
      {"to_float64", Op::to_double},
  };
  const auto found = names.find(name);
  return found == names.end() ? std::nullopt : std::optional(found->second);
}

void run(const Small& s, void* out, const std::array<Read, 3>& in) {
  if (s.dtype == at::kFloat) return run_as<float>(s, out, in);
  if (s.dtype == at::kDouble) return run_as<double>(s, out, in);
  TORCH_CHECK(s.dtype == at::kLong, "normkernels: a small op of another dtype");
  run_as<int64_t>(s, out, in);
}

}  // namespace normkernels::replay
