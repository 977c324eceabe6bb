// Loops over tiles of channels, written to vectorise along the tile.
#include "channel_tiles.h"

#include <type_traits>

namespace normkernels {
namespace {

// How far from the mean sums may be taken: the rounding of b - a^2 / n is this much larger than about the mean.
template <class C>
constexpr C kFar = C(4);

// v through the gate that u opens
template <Gate kGate, class C>
NK_INLINE C through(C u, C v, C slope) {
  if constexpr (kGate == Gate::relu) return u <= 0 ? C(0) : v;
  if constexpr (kGate == Gate::leaky_relu) return u > 0 ? v : slope * v;
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

template <class T, class D, class K>
constexpr bool kPaired = std::is_same_v<T, bfloat16> && std::is_same_v<D, T> && std::is_same_v<K, Same<float>>;

// Whether whole lines can be written past the caches.
template <class T>
bool lines(const T* out, int64_t n) {
#if defined(NK_AVX512)
  return kAvx512 && reinterpret_cast<uintptr_t>(out) % 64 == 0 && n * sizeof(T) % 64 == 0;
#else
  return false;
#endif
}

#if defined(NK_AVX512)
template <class T, class K>
NK_AVX512 void scale_lines(const T* x, const T* skip, const Scale<K>& k, T* y, int64_t n) {
  using C = compute_t<T>;
  const T* const second = skip ? skip : x;
  const C slope = static_cast<C>(k.slope);
  NK_FOR_EACH_GATE(map_past<kPaired<T, T, K>>(x, second, y, n, [=](int64_t i, C v, C s) NK_INLINED {
    const C u = scaled<kSkip>(k, i, v, s);
    return through<kGate>(u, u, slope);
  }))
}
template <class T>
NK_AVX512 void store_lines(const compute_t<T>* tile, T* y, int64_t n) {
  map_past<false>(tile, tile, y, n, [](int64_t, auto v, auto) NK_INLINED { return v; });
}
template <class T, class K, class D>
NK_AVX512 void blend_lines(const D* du, const T* x, const Blend<K>& k, T* dx, int64_t n) {
  map_past<kPaired<T, D, K>>(du, x, dx, n, blended(k));
}
#else
template <class T, class K>
void scale_lines(const T*, const T*, const Scale<K>&, T*, int64_t) {}
template <class T>
void store_lines(const compute_t<T>*, T*, int64_t) {}
template <class T, class K, class D>
void blend_lines(const D*, const T*, const Blend<K>&, T*, int64_t) {}
#endif

}  // namespace

template <class T, class K, class Out>
NK_CLONES void scale_tile(const T* x, const T* skip, const Scale<K>& k, Out* out, int64_t n) {
  using C = compute_t<T>;
  const T* const second = skip ? skip : x;
  const C slope = static_cast<C>(k.slope);
  NK_FOR_EACH_GATE(map(out, n, [=](int64_t i) NK_INLINED {
    const C u = scaled<kSkip>(k, i, C(load(x[i])), C(load(second[i])));
    return through<kGate>(u, u, slope);
  }))
}

template <class T, class K, class Out>
NK_CLONES void gate_tile(const T* dy, const T* x, const T* skip, const Scale<K>& k, Out* du, int64_t n) {
  using C = compute_t<T>;
  const T* const second = skip ? skip : x;
  const C slope = static_cast<C>(k.slope);
  NK_FOR_EACH_GATE(map(du, n, [=](int64_t i) NK_INLINED {
    const C u = scaled<kSkip>(k, i, C(load(x[i])), C(load(second[i])));
    return through<kGate>(u, C(load(dy[i])), slope);
  }))
}

template <class T, class K, class D>
NK_CLONES void blend_tile(const D* du, const T* x, const Blend<K>& k, T* dx, int64_t n) {
  const auto f = blended(k);
  map(dx, n, [=](int64_t i) NK_INLINED { return f(i, load(du[i]), load(x[i])); });
}

template <class T, class K>
void scale_past(const T* x, const T* skip, const Scale<K>& k, T* y, int64_t n) {
  if (lines(y, n)) return scale_lines(x, skip, k, y, n);
  alignas(64) T tile[kTile];
  scale_tile(x, skip, k, tile, n);
  stream_bytes(tile, y, n * sizeof(T));
}

template <class T>
void store_past(const compute_t<T>* tile, T* y, int64_t n) {
  if (lines(y, n)) return store_lines(tile, y, n);
  store_tile(tile, y, n);
}

template <class T, class K, class D>
void blend_past(const D* du, const T* x, const Blend<K>& k, T* dx, int64_t n) {
  if (lines(dx, n)) return blend_lines(du, x, k, dx, n);
  alignas(64) T tile[kTile];
  blend_tile(du, x, k, tile, n);
  stream_bytes(tile, dx, n * sizeof(T));
}

template <class T>
NK_CLONES Moments moments_about(const T* x, compute_t<T> about, int64_t n) {
  using C = compute_t<T>;
  const auto sums = [&](C centre) NK_INLINED {
    return sum_pairs<C>(n, [=](int64_t i) NK_INLINED {
      const C d = load(x[i]) - centre;
      return Pair<C>{d, d * d};
    });
  };
  const C count = static_cast<C>(n);
  Pair<C> s = sums(about);
  if (!(s.a * s.a / count <= kFar<C> * (s.b - s.a * s.a / count))) {
    about += s.a / count;
    s = sums(about);
  }
  const double left = static_cast<double>(s.a) / static_cast<double>(n);
  return {static_cast<double>(n), about + left, s.b - s.a * left};
}

template <class T, class D>
NK_CLONES Pair<compute_t<T>> sums_about(const D* du, const T* x, compute_t<T> mean, int64_t n) {
  using C = compute_t<T>;
  return sum_pairs<C>(n, [=](int64_t i) NK_INLINED {
    const C d = load(du[i]);
    return Pair<C>{d, d * (load(x[i]) - mean)};
  });
}

// Adds f(row, column) to the sums a and b of n columns, which stay in registers while the rows go by.
template <int64_t n, class C, class F>
NK_INLINE void add_rows(int64_t rows, C* a, C* b, const F& f) {
  C p[n], q[n];
  for (int64_t i = 0; i < n; i++) p[i] = a[i], q[i] = b[i];
  for (int64_t r = 0; r < rows; r++) {
    for (int64_t i = 0; i < n; i++) {
      const Pair<C> v = f(r, i);
      p[i] += v.a;
      q[i] += v.b;
    }
  }
  for (int64_t i = 0; i < n; i++) a[i] = p[i], b[i] = q[i];
}

// The same for any n.
template <class C, class F>
NK_INLINE void add_rows(int64_t rows, C* a, C* b, int64_t n, const F& f) {
  for (int64_t r = 0; r < rows; r++) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
      const Pair<C> v = f(r, i);
      a[i] += v.a;
      b[i] += v.b;
    }
  }
}

template <class T>
NK_INLINE void prefetch_band(const T* x) {
#if defined(__GNUC__)
  for (size_t i = 0; i < kBand * sizeof(T); i += 64) __builtin_prefetch(reinterpret_cast<const char*>(x) + i, 0, 2);
#endif
}

template <class T>
NK_CLONES void add_columns_about(const T* x, int64_t stride, int64_t rows, int64_t ahead, const compute_t<T>* about,
                                 compute_t<T>* a, compute_t<T>* b, int64_t n) {
  using C = compute_t<T>;
  const auto add = [=](int64_t r, int64_t i) NK_INLINED {
    const C d = load(x[r * stride + i]) - about[i];
    return Pair<C>{d, d * d};
  };
  if (n != kBand) return add_rows(rows, a, b, n, add);
  if (ahead)
    for (int64_t r = 0; r < rows; r++) prefetch_band(x + ahead + r * stride);
  add_rows<kBand>(rows, a, b, add);
}

template <class C>
NK_CLONES bool recentre(int64_t rows, C* about, C* a, C* b, int64_t n) {
  const C share = C(1) / static_cast<C>(rows);
  int far = 0;
#pragma omp simd reduction(| : far)
  for (int64_t i = 0; i < n; i++) {
    const C off = a[i] * a[i] * share;
    far |= !(off <= kFar<C> * (b[i] - off));
  }
  if (!far) return false;
#pragma omp simd
  for (int64_t i = 0; i < n; i++) {
    about[i] += a[i] * share;
    a[i] = b[i] = 0;
  }
  return true;
}

template <class C>
NK_CLONES void merge_columns(int64_t count, int64_t rows, C* about, C* a, C* b, double* mean, double* m2, int64_t n) {
  const double share = 1.0 / rows, weight = static_cast<double>(rows) / (count + rows), cross = weight * count;
#pragma omp simd
  for (int64_t i = 0; i < n; i++) {
    const double left = a[i] * share, delta = about[i] + left - mean[i];
    mean[i] += delta * weight;
    m2[i] += b[i] - a[i] * left + delta * delta * cross;
    about[i] = static_cast<C>(mean[i]);
    a[i] = b[i] = 0;
  }
}

template <class T, class D>
NK_CLONES void add_gradient_columns(const D* du, int64_t d_stride, const T* x, int64_t stride, int64_t rows,
                                    int64_t ahead, const compute_t<T>* mean, compute_t<T>* a, compute_t<T>* b,
                                    int64_t n) {
  using C = compute_t<T>;
  const auto add = [=](int64_t r, int64_t i) NK_INLINED {
    const C d = load(du[r * d_stride + i]);
    return Pair<C>{d, d * (load(x[r * stride + i]) - mean[i])};
  };
  if (n != kBand) return add_rows(rows, a, b, n, add);
  if (ahead) {
    for (int64_t r = 0; r < rows; r++) {
      prefetch_band(x + ahead + r * stride);
      prefetch_band(du + ahead + r * d_stride);
    }
  }
  add_rows<kBand>(rows, a, b, add);
}

#define NK_KIND(T, D, K)                                                               \
  template void scale_tile(const T*, const T*, const Scale<K>&, D*, int64_t);          \
  template void gate_tile(const T*, const T*, const T*, const Scale<K>&, D*, int64_t); \
  template void blend_tile(const D*, const T*, const Blend<K>&, T*, int64_t);          \
  template void blend_past(const D*, const T*, const Blend<K>&, T*, int64_t);
#define NK_GRADIENTS(T, D)                                                                                        \
  NK_KIND(T, D, Same<compute_t<T>>)                                                                               \
  NK_KIND(T, D, const compute_t<T>*)                                                                              \
  template Pair<compute_t<T>> sums_about(const D*, const T*, compute_t<T>, int64_t);                              \
  template void add_gradient_columns(const D*, int64_t, const T*, int64_t, int64_t, int64_t, const compute_t<T>*, \
                                     compute_t<T>*, compute_t<T>*, int64_t);
#define NK_CHANNELS(T)                                                                                     \
  template void store_past(const compute_t<T>*, T*, int64_t);                                              \
  template Moments moments_about(const T*, compute_t<T>, int64_t);                                         \
  template void scale_past(const T*, const T*, const Scale<Same<compute_t<T>>>&, T*, int64_t);             \
  template void scale_past(const T*, const T*, const Scale<const compute_t<T>*>&, T*, int64_t);            \
  template void add_columns_about(const T*, int64_t, int64_t, int64_t, const compute_t<T>*, compute_t<T>*, \
                                  compute_t<T>*, int64_t);                                                 \
  NK_GRADIENTS(T, compute_t<T>)
#define NK_COLUMNS(C)                                   \
  template bool recentre(int64_t, C*, C*, C*, int64_t); \
  template void merge_columns(int64_t, int64_t, C*, C*, C*, double*, double*, int64_t);
NK_CHANNELS(double)
NK_CHANNELS(float)
NK_CHANNELS(bfloat16)
NK_CHANNELS(float16)
NK_GRADIENTS(bfloat16, bfloat16)
NK_GRADIENTS(float16, float16)
NK_COLUMNS(double)
NK_COLUMNS(float)

}  // namespace normkernels
