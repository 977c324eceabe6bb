// What the compiler needs to vectorise a loop: a clone per instruction set, and element types it can convert.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#if defined(__unix__)
#include <unistd.h>  // sysconf
#endif

// NK_CLONES: a clone per instruction set, chosen when the library is loaded: fast, and still a wheel that runs
// anywhere. NK_AVX512: a twin for AVX-512 alone, because it uses what only that has; call it where kAvx512 is true.
// NK_AVX2 likewise. kVectorBytes: of the vectors that everything else has.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(NORMKERNELS_NO_CLONES)
#include <immintrin.h>
#define NK_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#define NK_AVX512 __attribute__((target("arch=x86-64-v4")))
#define NK_AVX2 __attribute__((target("arch=x86-64-v3")))
namespace normkernels {
// Twins follow ATEN_CPU_CAPABILITY, as torch's kernels do: avx2 leaves AVX-512 out, default both.
inline bool asked_for_less(bool than_avx2) {
  const char* const asked = std::getenv("ATEN_CPU_CAPABILITY");
  return asked && (!std::strcmp(asked, "default") || (!than_avx2 && !std::strcmp(asked, "avx2")));
}
inline const bool kAvx512 = !asked_for_less(false) && __builtin_cpu_supports("avx512f") &&
                            __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                            __builtin_cpu_supports("avx512vl");
inline const bool kAvx2 = !asked_for_less(true) && __builtin_cpu_supports("x86-64-v3");
}  // namespace normkernels
#else
#define NK_CLONES
#endif
#if defined(__GNUC__)
#define NK_INLINE inline __attribute__((always_inline))
#define NK_INLINED __attribute__((always_inline))  // for lambdas
#else
#define NK_INLINED
#define NK_INLINE inline
#endif
#if defined(__clang__) || (defined(__GNUC__) && __GNUC__ >= 12)
#define NK_SHUFFLES  // few.h
#endif
#if defined(NK_SHUFFLES) && defined(NK_AVX512)
#define NK_TWOS  // twos.h
#endif

namespace normkernels {

#if defined(__AVX512F__)
constexpr int64_t kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int64_t kVectorBytes = 32;
#else
constexpr int64_t kVectorBytes = 16;
#endif

constexpr int64_t kFewLanes = 16;  // values at least that a few are taken of at once, and lanes of AVX-512

// 16-bit elements as bits: plain integer conversions vectorise on every instruction set.
struct bfloat16 {
  uint16_t bits;
};
struct float16 {
  uint16_t bits;
};

template <class To, class From>
NK_INLINE To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

// Arithmetic and statistics: float, or double for double.
template <class T>
struct compute {
  using type = float;
};
template <>
struct compute<double> {
  using type = double;
};
template <class T>
using compute_t = typename compute<T>::type;

// 16-bit elements as floats, and back with one rounding, to nearest even; NaN stays NaN. U: uint32_t or lanes of them,
// F: float or as many.
template <class F, class U>
NK_INLINE F widened(U w, bfloat16) {
  return bit_cast<F>(w << 16);
}
template <class F, class U>
NK_INLINE F widened(U w, float16) {
  const U magnitude = w & 0x7fffu, sign = (w & 0x8000u) << 16, rebiased = (magnitude << 13) + (112u << 23);
  const F subnormal = bit_cast<F>((113u << 23) + (magnitude << 13)) - bit_cast<float>(113u << 23);
  const U finite = magnitude < 0x0400u ? bit_cast<U>(subnormal) : rebiased;
  return bit_cast<F>(sign | (magnitude >= 0x7c00u ? rebiased + (112u << 23) : finite));
}
template <class U, class F>
NK_INLINE U narrowed(F v, bfloat16) {
  const U u = bit_cast<U>(v), rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  return v == v ? rounded : U(rounded * 0u + 0x7fc0u);
}
template <class U, class F>
NK_INLINE U narrowed(F v, float16) {
  const U u = bit_cast<U>(v), magnitude = u & 0x7fffffffu, sign = (u >> 16) & 0x8000u;
  const U normal = (magnitude - (112u << 23) + 0x0fffu + ((magnitude >> 13) & 1u)) >> 13;
  // Adding 0.5 lines a subnormal's last bit up with float's, so the addition itself rounds.
  const U subnormal = bit_cast<U>(F(bit_cast<F>(magnitude) + 0.5f)) - bit_cast<uint32_t>(0.5f);
  U half = magnitude < (113u << 23) ? subnormal : normal;
  half = magnitude >= 0x477ff000u ? half * 0u + 0x7c00u : half;
  return sign | (magnitude > 0x7f800000u ? half * 0u + 0x7e00u : half);
}

NK_INLINE float load(float v) { return v; }
NK_INLINE double load(double v) { return v; }
NK_INLINE float load(bfloat16 v) { return widened<float>(uint32_t{v.bits}, v); }
NK_INLINE float load(float16 v) { return widened<float>(uint32_t{v.bits}, v); }

template <class T>
NK_INLINE T store(compute_t<T> v) {
  if constexpr (sizeof(T) == 2) {
    return {static_cast<uint16_t>(narrowed<uint32_t>(v, T{}))};
  } else {
    return v;
  }
}

// Two adjacent 16-bit elements, as the halves of one word: no lane has to move.
template <class C>
struct Pair {
  C a, b;
};
NK_INLINE Pair<float> load_pair(const bfloat16* p) {
  uint32_t w;
  std::memcpy(&w, p, sizeof(w));
  return {bit_cast<float>(w << 16), bit_cast<float>(w & 0xffff0000u)};
}
template <class U, class F>
NK_INLINE U rounded_bits(const F& v) {  // bfloat16 in the upper half
  const U u = bit_cast<U>(v), rounded = u + 0x7fffu + ((u >> 16) & 1u);
  return v == v ? rounded : U(rounded * 0u + 0x7fc00000u);
}
NK_INLINE void store_pair(Pair<float> v, bfloat16* p) {
  const uint32_t w = (rounded_bits<uint32_t>(v.a) >> 16) | (rounded_bits<uint32_t>(v.b) & 0xffff0000u);
  std::memcpy(p, &w, sizeof(w));
}

// Ask for memory that will be read soon.
template <class T>
NK_INLINE void prefetch_tile(const T* tile, int64_t n) {
#if defined(__GNUC__)
  const char* bytes = reinterpret_cast<const char*>(tile);
  for (int64_t i = 0; i < n * static_cast<int64_t>(sizeof(T)); i += 64) __builtin_prefetch(bytes + i, 0, 2);
#endif
}

// Two times the bytes of the second cache, or what most have.
inline const int64_t kNearBytes = [] {
  constexpr int64_t kMost = int64_t{2} << 20, kLeast = kMost / 4;
#if defined(_SC_LEVEL2_CACHE_SIZE)
  if (const int64_t known = 2 * sysconf(_SC_LEVEL2_CACHE_SIZE); known > 0) return std::clamp(known, kLeast, kMost);
#endif
  return kMost;
}();

// Ask for the lines of results that follow these n soon, of so many elements together: a store to a line that no near
// cache holds waits for it. Where the second cache holds them all there is nothing to ask for.
template <class T>
NK_INLINE bool asks_for_results(int64_t elements) {
  return elements * static_cast<int64_t>(sizeof(T)) >= kNearBytes;
}
template <class T>
NK_INLINE void prefetch_results(T* out, int64_t n, int64_t elements) {
  if (asks_for_results<T>(elements)) prefetch_tile(out + 4096 / sizeof(T), n);
}

}  // namespace normkernels
