// Tiles of channels 32 elements at a time, with AVX-512: those of 16 bits, and gates, which gcc compiles badly.
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
// Whether so many elements are taken so; f(position) of each 32: the last ones overlap those before, which f must not
// have changed.
NK_INLINE bool paired(int64_t n) { return kAvx512 && n >= kPaired; }
template <class F>
NK_INLINE void each_paired(int64_t n, const F& f) {
  int64_t i = 0;
  for (; i + kPaired <= n; i += kPaired) f(i);
  if (i < n) f(n - kPaired);
}

template <class T>
NK_INLINE Twos coefficients(const Same<float>& k, int64_t) {
  return {Few<float>{} + k.value, Few<float>{} + k.value};
}
template <class T>
NK_INLINE Twos coefficients(const float* k, int64_t i) {
  return columns<T>(k + i);
}
template <Gate kGate>
NK_INLINE Twos through(const Twos& u, const Twos& v, float slope) {
  return {through<kGate>(u.even, v.even, slope), through<kGate>(u.odd, v.odd, slope)};
}
template <bool kSkip, class T, class K>
NK_INLINE Twos scaled(const T* x, const T* skip, const Scale<K>& k, int64_t i) {
  const Twos mean = coefficients<T>(k.mean, i), scale = coefficients<T>(k.scale, i);
  const Twos u = (twos(x + i) - mean) * scale + coefficients<T>(k.shift, i);
  if constexpr (kSkip) return u + twos(skip + i);
  return u;
}

template <bool kStream, class T>
NK_AVX512 void scale_twos(const T* x, const T* skip, const Scale<Same<float>>& k, T* out, int64_t n) {
  const float slope = static_cast<float>(k.slope);
  NK_FOR_EACH_GATE(each_paired(n, [&](int64_t i) NK_INLINED {
    const Twos u = scaled<kSkip>(x, skip, k, i);
    put<kStream>(through<kGate>(u, u, slope), out + i);
  }))
}

// gcc makes one load of a load and a gate, which then waits for the gate: half as long again from memory.
NK_INLINE void load_first(Few<float>& v) { asm("" : "+v"(v)); }

template <class T, class K>
NK_AVX512 void gate_twos(const T* dy, const T* x, const T* skip, const Scale<K>& k, T* du, int64_t n) {
  constexpr int64_t kAhead = 1024;  // elements: how far ahead memory is asked for
  const float slope = static_cast<float>(k.slope);
  NK_FOR_EACH_GATE(each_paired(n, [&](int64_t i) NK_INLINED {
    prefetch_tile(dy + i + kAhead, kPaired);
    prefetch_tile(x + i + kAhead, kPaired);
    if constexpr (kSkip) prefetch_tile(skip + i + kAhead, kPaired);
    Twos v = twos(dy + i);
    load_first(v.even);
    load_first(v.odd);
    put<false>(through<kGate>(scaled<kSkip>(x, skip, k, i), v, slope), du + i);
  }))
}

template <bool kStream, class T>
NK_AVX512 void blend_twos(const T* du, const T* x, const Blend<Same<float>>& k, T* dx, int64_t n) {
  const auto f = blended(k);
  each_paired(n, [&](int64_t i) NK_INLINED {
    const Twos d = twos(du + i), v = twos(x + i);
    put<kStream>({f(0, d.even, v.even), f(0, d.odd, v.odd)}, dx + i);
  });
}
#endif

}  // namespace normkernels
