// What loops over tiles of channels do to an element, or to a few as one value.
#pragma once

#include "cpu/base/lanes.h"
#include "cpu/channels/tiles.h"

namespace normkernels {

// v through the gate that u opens
template <Gate kGate, class C, class S>
NK_INLINE C through(C u, C v, S slope) {
  if constexpr (kGate == Gate::relu) return u <= 0 ? C{} : v;
  if constexpr (kGate == Gate::leaky_relu) return u > 0 ? v : C(slope * v);
  return v;
}

// u of column i from x and skip, before the gate
template <bool kSkip, class K, class C>
NK_INLINE C scaled(const Scale<K>& k, int64_t i, C x, C skip) {
  const C u = (x - k.mean[i]) * k.scale[i] + k.shift[i];
  if constexpr (kSkip) return u + skip;
  return u;
}

// Runs the statement with the gate of k and whether there is a skip as constants kGate and kSkip.
#define NK_FOR_GATE(gate, ...)      \
  {                                 \
    constexpr Gate kGate = gate;    \
    if (skip) {                     \
      constexpr bool kSkip = true;  \
      __VA_ARGS__;                  \
    } else {                        \
      constexpr bool kSkip = false; \
      __VA_ARGS__;                  \
    }                               \
  }
#define NK_FOR_EACH_GATE(...)            \
  if (k.gate == Gate::none)              \
    NK_FOR_GATE(Gate::none, __VA_ARGS__) \
  else if (k.gate == Gate::relu)         \
    NK_FOR_GATE(Gate::relu, __VA_ARGS__) \
  else                                   \
    NK_FOR_GATE(Gate::leaky_relu, __VA_ARGS__)

template <class K>
NK_INLINE auto blended(const Blend<K>& k) {
  return [=](int64_t i, auto du, auto x) NK_INLINED { return k.a[i] * du + (k.b[i] * (x - k.mean[i]) + k.c[i]); };
}

template <class T, class K, class Out>
NK_INLINE void gate_elements(const T* dy, const T* x, const T* skip, const Scale<K>& k, Out* du, int64_t n) {
  using C = compute_t<T>;
  const T* const second = skip ? skip : x;
  const C slope = static_cast<C>(k.slope);
  NK_FOR_EACH_GATE(map(du, n, [=](int64_t i) NK_INLINED {
    const C u = scaled<kSkip>(k, i, C(load(x[i])), C(load(second[i])));
    return through<kGate>(u, C(load(dy[i])), slope);
  }))
}

}  // namespace normkernels
