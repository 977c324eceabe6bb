// Tiles of channels two vectors at a time: those of 16 bits, and gates, which gcc compiles badly.
#pragma once

#include "cpu/base/twos.h"
#include "cpu/channels/gates.h"

namespace normkernels {

// Whether they can be: coefficients of K are floats, and what comes out is in T.
template <class T, class K, class Out>
constexpr bool kByTwos =
    std::is_same_v<Out, T> && sizeof(T) <= 4 && (std::is_same_v<K, Same<float>> || std::is_same_v<K, const float*>);
// Whether 16 bits are taken so everywhere: coefficients of columns would have to be laid out anew.
template <class T, class K, class Out>
constexpr bool kWords = sizeof(T) == 2 && std::is_same_v<Out, T> && std::is_same_v<K, Same<float>>;

#if defined(NK_TWOS)
// Whether so many elements are taken so; f(position) of each two vectors: the last ones overlap those before, which f
// must not have changed.
NK_INLINE bool paired(int64_t n) { return kTwos && n >= kPaired; }
template <class V, class F>
NK_INLINE void each_paired(int64_t n, const F& f) {
  constexpr int64_t kStep = kWidth<Twos<V>>;
  int64_t i = 0;
  for (; i + kStep <= n; i += kStep) f(i);
  if (i < n) f(n - kStep);
}

template <class T, class V>
NK_INLINE Twos<V> coefficients(const Same<float>& k, int64_t) {
  return {V{} + k.value, V{} + k.value};
}
template <class T, class V>
NK_INLINE Twos<V> coefficients(const float* k, int64_t i) {
  return columns<T, V>(k + i);
}
template <Gate kGate, class V>
NK_INLINE Twos<V> through(const Twos<V>& u, const Twos<V>& v, float slope) {
  return {through<kGate>(u.even, v.even, slope), through<kGate>(u.odd, v.odd, slope)};
}
template <bool kSkip, class V, class T, class K>
NK_INLINE Twos<V> scaled(const T* x, const T* skip, const Scale<K>& k, int64_t i) {
  const Twos<V> mean = coefficients<T, V>(k.mean, i), scale = coefficients<T, V>(k.scale, i);
  const Twos<V> u = (twos<V>(x + i) - mean) * scale + coefficients<T, V>(k.shift, i);
  if constexpr (kSkip) return u + twos<V>(skip + i);
  return u;
}

// Each with vectors V, and with those that there are:
template <class V, bool kStream, class T>
NK_INLINE void scale_with(const T* x, const T* skip, const Scale<Same<float>>& k, T* out, int64_t n) {
  const float slope = static_cast<float>(k.slope);
  NK_FOR_EACH_GATE(each_paired<V>(n, [&](int64_t i) NK_INLINED {
    const Twos<V> u = scaled<kSkip, V>(x, skip, k, i);
    put<kStream>(through<kGate>(u, u, slope), out + i);
  }))
}
template <bool kStream, class T>
void scale_twos(const T* x, const T* skip, const Scale<Same<float>>& k, T* out, int64_t n) {
  with_twos([=](auto bytes) NK_INLINED { scale_with<Vector<float, bytes()>, kStream>(x, skip, k, out, n); });
}

// gcc makes one load of a load and a gate, which then waits for the gate: half as long again from memory.
template <class V>
NK_INLINE void load_first(V& v) {
  asm("" : "+v"(v));
}

template <class V, class T, class K>
NK_INLINE void gate_with(const T* dy, const T* x, const T* skip, const Scale<K>& k, T* du, int64_t n) {
  constexpr int64_t kAhead = 1024, kStep = kWidth<Twos<V>>;  // elements: how far ahead memory is asked for
  const float slope = static_cast<float>(k.slope);
  NK_FOR_EACH_GATE(each_paired<V>(n, [&](int64_t i) NK_INLINED {
    prefetch_tile(dy + i + kAhead, kStep);
    prefetch_tile(x + i + kAhead, kStep);
    if constexpr (kSkip) prefetch_tile(skip + i + kAhead, kStep);
    Twos<V> v = twos<V>(dy + i);
    load_first(v.even);
    load_first(v.odd);
    put<false>(through<kGate>(scaled<kSkip, V>(x, skip, k, i), v, slope), du + i);
  }))
}
template <class T, class K>
void gate_twos(const T* dy, const T* x, const T* skip, const Scale<K>& k, T* du, int64_t n) {
  with_twos([=](auto bytes) NK_INLINED { gate_with<Vector<float, bytes()>>(dy, x, skip, k, du, n); });
}

template <class V, bool kStream, class T>
NK_INLINE void blend_with(const T* du, const T* x, const Blend<Same<float>>& k, T* dx, int64_t n) {
  const auto f = blended(k);
  each_paired<V>(n, [&](int64_t i) NK_INLINED {
    const Twos<V> d = twos<V>(du + i), v = twos<V>(x + i);
    put<kStream>(Twos<V>{f(0, d.even, v.even), f(0, d.odd, v.odd)}, dx + i);
  });
}
template <bool kStream, class T>
void blend_twos(const T* du, const T* x, const Blend<Same<float>>& k, T* dx, int64_t n) {
  with_twos([=](auto bytes) NK_INLINED { blend_with<Vector<float, bytes()>, kStream>(du, x, k, dx, n); });
}
#endif

}  // namespace normkernels
