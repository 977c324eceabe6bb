// Loops of NormProp's epilogue, written to vectorise along the tile.
#include "cpu/normprop/tiles.h"

#include <limits>
#include <type_traits>

#include "cpu/base/lanes.h"

namespace normkernels {
namespace {

// NaN stays NaN.
template <class C>
NK_INLINE C at_least(C v, C low) {
  return v < low ? low : v;
}
template <class C>
NK_INLINE C at_most(C v, C high) {
  return v > high ? high : v;
}

// du[i] = f(i).a; adds both members of f(i), the second one if kSlope, to the sums.
template <class K, bool kSlope, class T, class C, class F>
NK_INLINE void write_and_add(T* du, Pair<C*> sums, int64_t n, const F& f) {
  if constexpr (std::is_same_v<K, const C*>) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
      const Pair<C> p = f(i);
      du[i] = store<T>(p.a);
      sums.a[i] += p.a;
      if constexpr (kSlope) sums.b[i] += p.b;
    }
  } else {
    C a[kLanes] = {}, b[kLanes] = {};
    const auto add = [&](int64_t first, int64_t count) NK_INLINED {
#pragma omp simd
      for (int64_t l = 0; l < count; l++) {
        const Pair<C> p = f(first + l);
        du[first + l] = store<T>(p.a);
        a[l] += p.a;
        if constexpr (kSlope) b[l] += p.b;
      }
    };
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) add(i, kLanes);
    add(i, n - i);
    *sums.a += add_lanes<kLanes / 2>(a);
    if constexpr (kSlope) *sums.b += add_lanes<kLanes / 2>(b);
  }
}

}  // namespace

template <class T, class K, class P>
NK_CLONES void bend_tile(const T* u, const Bend<K, P>& k, const Bounds<compute_t<T>>& bounds, T* y, int64_t n) {
  using C = compute_t<T>;
  const auto [floor, ceiling, kink_low, kink_high, low, high] = bounds;
  const auto bend = [=](C t, int64_t i) NK_INLINED { return t * (t > 0 ? k.up[i] : k.down[i]) + k.shift[i]; };
  if (ceiling == std::numeric_limits<C>::infinity()) {  // at most one kink, at 0
    map(y, n, [=](int64_t i) NK_INLINED {
      const C t = at_least(load(u[i]) + k.bias[i], floor), v = bend(t, i);
      return t > 0 ? at_least(v, low) : v;
    });
  } else {
    map(y, n, [=](int64_t i) NK_INLINED {
      const C t = at_most(at_least(load(u[i]) + k.bias[i], floor), ceiling), v = bend(t, i);
      return (t > kink_low) & (t < kink_high) ? at_most(at_least(v, low), high) : v;
    });
  }
}

template <class K, class T>
NK_CLONES void interval_gradient(const T* dy, const T* y, const Interval<compute_t<T>>& k, T* du,
                                 Pair<compute_t<T>*> sums, int64_t n) {
  using C = compute_t<T>;
  const auto [low, high, inside, outside] = k;
  write_and_add<K, false>(du, sums, n, [=](int64_t i) NK_INLINED {
    const C v = load(y[i]);
    return Pair<C>{load(dy[i]) * ((v >= low) & (v <= high) ? inside : outside), C(0)};
  });
}

template <class K, class T>
NK_CLONES void prelu_gradient(const T* dy, const T* u, const Prelu<K>& k, T* du, Pair<compute_t<T>*> sums, int64_t n) {
  using C = compute_t<T>;
  write_and_add<K, true>(du, sums, n, [=](int64_t i) NK_INLINED {
    const C z = load(u[i]) + k.bias[i], d = load(dy[i]);
    return Pair<C>{d * (z > 0 ? k.up[i] : k.down[i]), d * (k.of_one[i] + z * (z > 0 ? k.of_up[i] : k.of_down[i]))};
  });
}

template <class K, class T>
NK_CLONES void scaled_gradient(const compute_t<T>* tile, compute_t<T> scale, T* du, Pair<compute_t<T>*> sums,
                               int64_t n) {
  write_and_add<K, false>(du, sums, n,
                          [=](int64_t i) NK_INLINED { return Pair<compute_t<T>>{tile[i] * scale, compute_t<T>(0)}; });
}

#define NK_BEND(T, K, P) template void bend_tile(const T*, const Bend<K, P>&, const Bounds<compute_t<T>>&, T*, int64_t);
#define NK_GRADIENTS(T, K)                                                                                       \
  template void interval_gradient<K>(const T*, const T*, const Interval<compute_t<T>>&, T*, Pair<compute_t<T>*>, \
                                     int64_t);                                                                   \
  template void prelu_gradient(const T*, const T*, const Prelu<K>&, T*, Pair<compute_t<T>*>, int64_t);           \
  template void scaled_gradient<K>(const compute_t<T>*, compute_t<T>, T*, Pair<compute_t<T>*>, int64_t);
#define NK_NORMPROP(T)                                 \
  NK_BEND(T, Same<compute_t<T>>, Same<compute_t<T>>)   \
  NK_BEND(T, const compute_t<T>*, Same<compute_t<T>>)  \
  NK_BEND(T, const compute_t<T>*, const compute_t<T>*) \
  NK_GRADIENTS(T, Same<compute_t<T>>)                  \
  NK_GRADIENTS(T, const compute_t<T>*)
NK_NORMPROP(double)
NK_NORMPROP(float)
NK_NORMPROP(bfloat16)
NK_NORMPROP(float16)

}  // namespace normkernels
