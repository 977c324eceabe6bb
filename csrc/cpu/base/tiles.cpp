// Loops over one tile, written to vectorise: no branch inside, one rounding per result.
#include "cpu/base/tiles.h"

#include <algorithm>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "cpu/base/lanes.h"

namespace normkernels {
namespace {

// The second pass also finds what rounding left in the mean.
template <class C, class T>
NK_INLINE Moments centred(const T* x, int64_t n) {
  const C mean = sum<C>(n, [=](int64_t i) NK_INLINED { return C(load(x[i])); }) / static_cast<C>(n);
  const Pair<C> rest = sum_pairs<C>(n, [=](int64_t i) NK_INLINED {
    const C d = load(x[i]) - mean;
    return Pair<C>{d, d * d};
  });
  const double count = static_cast<double>(n), left = static_cast<double>(rest.a) / count;
  return {count, mean + left, rest.b - rest.a * left};
}

template <class C, class T>
NK_INLINE Moments uncentred(const T* x, int64_t n) {
  const C squares = sum<C>(n, [=](int64_t i) NK_INLINED { return C(load(x[i])) * C(load(x[i])); });
  return {static_cast<double>(n), 0, static_cast<double>(squares)};
}

}  // namespace

template <class T>
NK_CLONES Moments wide_moments(const T* x, bool about_mean, int64_t n) {
  return about_mean ? centred<double>(x, n) : uncentred<double>(x, n);
}

template <class T>
NK_CLONES Moments centred_moments(const T* x, int64_t n) {
  return centred<compute_t<T>>(x, n);
}

template <class T>
NK_CLONES Moments uncentred_moments(const T* x, int64_t n) {
  return uncentred<compute_t<T>>(x, n);
}

template <class T>
NK_CLONES compute_t<T> sum_about(const T* x, compute_t<T> mean, int64_t n) {
  return sum<compute_t<T>>(n, [=](int64_t i) NK_INLINED { return load(x[i]) - mean; });
}

template <class T>
NK_CLONES void add_tiles(const T* x, const T* residual, T* s, int64_t n) {
  map(s, n, [&](int64_t i) NK_INLINED { return load(x[i]) + load(residual[i]); });
}

template <class C>
NK_CLONES void drain(C* sums, double* totals, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; i++) {
    totals[i] += sums[i];
    sums[i] = 0;
  }
}

template <class T, class Out>
NK_CLONES void affine_tile(const T* x, const TileAffine<compute_t<T>>& k, Out* u, int64_t n) {
  const auto [mean, rstd, w, b, shift] = k;
  const auto xhat = [=](int64_t i) NK_INLINED { return (load(x[i]) - mean) * rstd + shift; };
  if (w && b) {
    map(u, n, [=](int64_t i) NK_INLINED { return xhat(i) * w[i] + b[i]; });
  } else if (w) {
    map(u, n, [=](int64_t i) NK_INLINED { return xhat(i) * w[i]; });
  } else if (b) {
    map(u, n, [=](int64_t i) NK_INLINED { return xhat(i) + b[i]; });
  } else {
    map(u, n, xhat);
  }
}

template <class T, class D>
NK_CLONES Pair<compute_t<T>> gradient_sums(const D* du, const T* x, const TileAffine<compute_t<T>>& k, int64_t n) {
  using C = compute_t<T>;
  const auto [mean, rstd, w, b, shift] = k;
  const auto xhat = [=](int64_t i) NK_INLINED { return (load(x[i]) - mean) * rstd + shift; };
  if (w) {
    return sum_pairs<C>(n, [=](int64_t i) NK_INLINED {
      const C g = load(du[i]) * w[i];
      return Pair<C>{g, g * xhat(i)};
    });
  }
  return sum_pairs<C>(n, [=](int64_t i) NK_INLINED {
    const C g = load(du[i]);
    return Pair<C>{g, g * xhat(i)};
  });
}

// One loop for each set of what is there, so that x and du are loaded once for all three gradients.
template <bool kWeight, bool kSummed, bool kDWeight, bool kDBias, class T, class D>
NK_INLINE void gradient_loop(const D* du, const T* x, const T* dsummed, const TileAffine<compute_t<T>>& k,
                             Pair<compute_t<T>> means, T* out, compute_t<T>* dweight, compute_t<T>* dbias, int64_t n) {
  const compute_t<T> mean = k.mean, rstd = k.rstd, shift = k.shift;  // no binding: clang's OpenMP cannot capture one
  const compute_t<T>* w = k.weight;
#pragma omp simd
  for (int64_t i = 0; i < n; i++) {
    const compute_t<T> d = load(du[i]), xhat = (load(x[i]) - mean) * rstd + shift;
    if constexpr (kDWeight) dweight[i] += d * xhat;
    if constexpr (kDBias) dbias[i] += d;
    compute_t<T> g = d;
    if constexpr (kWeight) g *= w[i];
    g = rstd * (g - means.a - xhat * means.b);
    if constexpr (kSummed) g += load(dsummed[i]);
    out[i] = store<T>(g);
  }
}

template <bool kWeight, bool kSummed, class T, class D>
NK_INLINE void gradient_loops(const D* du, const T* x, const T* dsummed, const TileAffine<compute_t<T>>& k,
                              Pair<compute_t<T>> means, T* out, compute_t<T>* dweight, compute_t<T>* dbias, int64_t n) {
  if (dweight && dbias) {
    gradient_loop<kWeight, kSummed, true, true>(du, x, dsummed, k, means, out, dweight, dbias, n);
  } else if (dweight) {
    gradient_loop<kWeight, kSummed, true, false>(du, x, dsummed, k, means, out, dweight, dbias, n);
  } else if (dbias) {
    gradient_loop<kWeight, kSummed, false, true>(du, x, dsummed, k, means, out, dweight, dbias, n);
  } else {
    gradient_loop<kWeight, kSummed, false, false>(du, x, dsummed, k, means, out, dweight, dbias, n);
  }
}

template <class T, class D>
NK_CLONES void gradients(const D* du, const T* x, const T* dsummed, const TileAffine<compute_t<T>>& k,
                         Pair<compute_t<T>> means, T* out, compute_t<T>* dweight, compute_t<T>* dbias, int64_t n) {
  if (k.weight && dsummed) {
    gradient_loops<true, true>(du, x, dsummed, k, means, out, dweight, dbias, n);
  } else if (k.weight) {
    gradient_loops<true, false>(du, x, dsummed, k, means, out, dweight, dbias, n);
  } else if (dsummed) {
    gradient_loops<false, true>(du, x, dsummed, k, means, out, dweight, dbias, n);
  } else {
    gradient_loops<false, false>(du, x, dsummed, k, means, out, dweight, dbias, n);
  }
}

template <class T>
NK_CLONES void load_tile(const T* source, compute_t<T>* tile, int64_t n) {
  map(tile, n, [=](int64_t i) NK_INLINED { return load(source[i]); });
}

template <class T>
NK_CLONES void store_tile(const compute_t<T>* tile, T* target, int64_t n) {
  map(target, n, [=](int64_t i) NK_INLINED { return tile[i]; });
}

// Whole cache lines
#if defined(NK_AVX512)
NK_AVX512 static void stream_wide(const char* tile, char* target, int64_t bytes) {
  for (int64_t done = 0; done < bytes; done += 64)
    _mm512_stream_si512(reinterpret_cast<__m512i*>(target + done), _mm512_loadu_si512(tile + done));
}
#endif
static void stream_lines(const char* tile, char* target, int64_t bytes) {
#if defined(NK_AVX512)
  if (kAvx512) return stream_wide(tile, target, bytes);
#endif
#if defined(__SSE2__)
  for (int64_t done = 0; done < bytes; done += 16)
    _mm_stream_si128(reinterpret_cast<__m128i*>(target + done),
                     _mm_loadu_si128(reinterpret_cast<const __m128i*>(tile + done)));
#else
  std::memcpy(target, tile, bytes);
#endif
}

void copy_nontemporal(const void* tile, void* target, int64_t bytes) {
  const char* from = static_cast<const char*>(tile);
  char* to = static_cast<char*>(target);
  const int64_t head = std::min<int64_t>(bytes, -reinterpret_cast<uintptr_t>(target) % 64);
  const int64_t lines = (bytes - head) / 64 * 64, rest = head + lines;
  std::memcpy(to, from, head);
  stream_lines(from + head, to + head, lines);
  std::memcpy(to + rest, from + rest, bytes - rest);
}

void nontemporal_fence() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

#define NK_GRADIENTS(T, D)                                                                                       \
  template Pair<compute_t<T>> gradient_sums(const D*, const T*, const TileAffine<compute_t<T>>&, int64_t);       \
  template void gradients(const D*, const T*, const T*, const TileAffine<compute_t<T>>&, Pair<compute_t<T>>, T*, \
                          compute_t<T>*, compute_t<T>*, int64_t);                                                \
  template void affine_tile(const T*, const TileAffine<compute_t<T>>&, D*, int64_t);
#define NK_TILES(T)                                                 \
  template Moments wide_moments(const T*, bool, int64_t);           \
  template Moments centred_moments(const T*, int64_t);              \
  template Moments uncentred_moments(const T*, int64_t);            \
  template compute_t<T> sum_about(const T*, compute_t<T>, int64_t); \
  template void add_tiles(const T*, const T*, T*, int64_t);         \
  template void load_tile(const T*, compute_t<T>*, int64_t);        \
  template void store_tile(const compute_t<T>*, T*, int64_t);       \
  NK_GRADIENTS(T, compute_t<T>)
template void drain(double*, double*, int64_t);
template void drain(float*, double*, int64_t);
NK_TILES(double)
NK_TILES(float)
NK_TILES(bfloat16)
NK_TILES(float16)
NK_GRADIENTS(bfloat16, bfloat16)
NK_GRADIENTS(float16, float16)

}  // namespace normkernels
