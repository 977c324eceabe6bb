// Loops over tiles of channels, written to vectorise along the tile.
#include "cpu/channels/tiles.h"

#include <cmath>
#include <type_traits>

#include "cpu/base/activated.h"
#include "cpu/channels/twos.h"

namespace normkernels {
namespace {

// Whether bfloat16 can be taken two to a word.
template <class T, class K, class Out>
constexpr bool kPairs = std::is_same_v<T, bfloat16> && kWords<T, K, Out>;

// out[i] = f(i, p[i], q[i]), part of so many results, whose lines are asked for a few at a time; kTwoToAWord: f does
// not look at i. In 16 bits arithmetic is the limit.
template <bool kTwoToAWord, class P, class Q, class Out, class F>
NK_INLINE void map_both(const P* p, const Q* q, Out* out, int64_t n, int64_t results, const F& f) {
  if constexpr (kTwoToAWord) {
    map_pairs(p, q, out, n, f);
  } else {
    constexpr int64_t kFew = 128;
    const int64_t part = sizeof(Out) > 2 && asks_for_results<Out>(results) ? kFew : n;
    for (int64_t first = 0; first < n; first += part) {
      if constexpr (sizeof(Out) > 2) prefetch_results(out + first, part, results);
      map(out + first, std::min(part, n - first), [=](int64_t i) NK_INLINED {
        return static_cast<compute_t<Out>>(f(first + i, load(p[first + i]), load(q[first + i])));
      });
    }
  }
}

// Whether whole lines can be written past the caches.
template <class T>
bool lines(const T* out, int64_t n) {
#if defined(NK_TWOS)
  return kTwos && on_line(out) && n * sizeof(T) % 64 == 0;
#else
  return false;
#endif
}

// f of column i, from x and skip
template <Activation f, bool kSkip, class K>
NK_INLINE auto activated_by(const Scale<K>& k) {
  return [=](int64_t i, float x, float skip) NK_INLINED { return activated<f>(scaled<kSkip>(k, i, x, skip)); };
}

#if defined(NK_TWOS)
template <class T, class K>
void scale_lines(const T* x, const T* skip, const Scale<K>& k, T* y, int64_t n) {
  using C = compute_t<T>;
  if constexpr (kWords<T, K, T>) return scale_twos<true>(x, skip, k, y, n);
  const T* const second = skip ? skip : x;
  const C slope = static_cast<C>(k.slope);
  with_twos([=](auto bytes) NK_INLINED {
    NK_FOR_EACH_GATE(map_nontemporal<bytes()>(x, second, y, n, [=](int64_t i, C v, C s) NK_INLINED {
      const C u = scaled<kSkip>(k, i, v, s);
      return through<kGate>(u, u, slope);
    }))
  });
}
template <Activation f, bool kSkip, class K>
void activated_lines(const float* x, const float* skip, const Scale<K>& k, float* y, int64_t n) {
  const auto value = activated_by<f, kSkip>(k);
  with_twos([=](auto bytes) NK_INLINED { map_nontemporal<bytes()>(x, skip, y, n, value); });
}
template <class T>
void store_lines(const compute_t<T>* tile, T* y, int64_t n) {
  const auto value = [](int64_t, auto v, auto) NK_INLINED { return v; };
  with_twos([=](auto bytes) NK_INLINED { map_nontemporal<bytes()>(tile, tile, y, n, value); });
}
template <class T, class K, class D>
void blend_lines(const D* du, const T* x, const Blend<K>& k, T* dx, int64_t n) {
  if constexpr (kWords<T, K, D>) return blend_twos<true>(du, x, k, dx, n);
  with_twos([=](auto bytes) NK_INLINED { map_nontemporal<bytes()>(du, x, dx, n, blended(k)); });
}
#else
template <class T, class K>
void scale_lines(const T*, const T*, const Scale<K>&, T*, int64_t) {}
template <Activation, bool, class K>
void activated_lines(const float*, const float*, const Scale<K>&, float*, int64_t) {}
template <class T>
void store_lines(const compute_t<T>*, T*, int64_t) {}
template <class T, class K, class D>
void blend_lines(const D*, const T*, const Blend<K>&, T*, int64_t) {}
#endif

}  // namespace

template <class T, class K, class Out>
NK_CLONES void scale_tile(const T* x, const T* skip, const Scale<K>& k, Out* out, int64_t n, int64_t results) {
  using C = compute_t<T>;
#if defined(NK_TWOS)
  if constexpr (kWords<T, K, Out>) {
    if (paired(n)) return scale_twos<false>(x, skip, k, out, n);
  }
#endif
  const T* const second = skip ? skip : x;
  const C slope = static_cast<C>(k.slope);
  NK_FOR_EACH_GATE(map_both<kPairs<T, K, Out>>(x, second, out, n, results, [=](int64_t i, C v, C s) NK_INLINED {
    const C u = scaled<kSkip>(k, i, v, s);
    return through<kGate>(u, u, slope);
  }))
}

template <Activation f, bool kSkip, class K>
NK_CLONES void activated_tile(const float* x, const float* skip, const Scale<K>& k, float* y, int64_t n) {
  const auto value = activated_by<f, kSkip>(k);
  map(y, n, [=](int64_t i) NK_INLINED { return value(i, x[i], skip[i]); });
}

template <class K>
void scale_activated(const float* x, const float* skip, const Scale<K>& k, Activation f, float* y, int64_t n,
                     bool nontemporal) {
  const auto write = [&](auto of, auto with_skip) {
    const float* const second = skip ? skip : x;
    if (!nontemporal) return activated_tile<of(), with_skip()>(x, second, k, y, n);
    if (lines(y, n)) return activated_lines<of(), with_skip()>(x, second, k, y, n);
    alignas(64) float tile[kTile];
    activated_tile<of(), with_skip()>(x, second, k, tile, n);
    copy_nontemporal(tile, y, n * sizeof(float));
  };
  with_activation<float>(f, [&](auto of) { skip ? write(of, std::true_type()) : write(of, std::false_type()); });
}

template <class T, class K, class Out>
NK_CLONES void gate_tile(const T* dy, const T* x, const T* skip, const Scale<K>& k, Out* du, int64_t n) {
#if defined(NK_TWOS)
  if constexpr (kByTwos<T, K, Out>) {
    if (paired(n)) return gate_twos(dy, x, skip, k, du, n);
  }
#endif
  gate_elements(dy, x, skip, k, du, n);
}

template <class T, class K, class D>
NK_CLONES void blend_tile(const D* du, const T* x, const Blend<K>& k, T* dx, int64_t n, int64_t results) {
#if defined(NK_TWOS)
  if constexpr (kWords<T, K, D>) {
    if (paired(n)) return blend_twos<false>(du, x, k, dx, n);
  }
#endif
  map_both<kPairs<T, K, D>>(du, x, dx, n, results, blended(k));
}

template <class T, class K>
void scale_nontemporal(const T* x, const T* skip, const Scale<K>& k, T* y, int64_t n) {
  if (lines(y, n)) return scale_lines(x, skip, k, y, n);
  alignas(64) T tile[kTile];
  scale_tile(x, skip, k, tile, n);
  copy_nontemporal(tile, y, n * sizeof(T));
}

template <class T>
void store_nontemporal(const compute_t<T>* tile, T* y, int64_t n) {
  if (lines(y, n)) return store_lines(tile, y, n);
  store_tile(tile, y, n);
}

template <class T, class K, class D>
void blend_nontemporal(const D* du, const T* x, const Blend<K>& k, T* dx, int64_t n) {
  if (lines(dx, n)) return blend_lines(du, x, k, dx, n);
  alignas(64) T tile[kTile];
  blend_tile(du, x, k, tile, n);
  copy_nontemporal(tile, dx, n * sizeof(T));
}

template <class C>
NK_CLONES void rstd_tile(const C* var, double eps, C* rstd, int64_t n) {
  map(rstd, n, [=](int64_t i) NK_INLINED { return static_cast<C>(1 / std::sqrt(static_cast<double>(var[i]) + eps)); });
}

#define NK_KIND(T, D, K)                                                               \
  template void scale_tile(const T*, const T*, const Scale<K>&, D*, int64_t, int64_t); \
  template void gate_tile(const T*, const T*, const T*, const Scale<K>&, D*, int64_t); \
  template void blend_tile(const D*, const T*, const Blend<K>&, T*, int64_t, int64_t); \
  template void blend_nontemporal(const D*, const T*, const Blend<K>&, T*, int64_t);
#define NK_KINDS(T, D)              \
  NK_KIND(T, D, Same<compute_t<T>>) \
  NK_KIND(T, D, const compute_t<T>*)
#define NK_WIDE(T, D)                                                                             \
  template void blend_tile(const D*, const T*, const Blend<Same<double>>&, T*, int64_t, int64_t); \
  template void blend_tile(const D*, const T*, const Blend<const double*>&, T*, int64_t, int64_t);
#define NK_CHANNELS(T)                                                                                 \
  template void store_nontemporal(const compute_t<T>*, T*, int64_t);                                   \
  template void scale_nontemporal(const T*, const T*, const Scale<Same<compute_t<T>>>&, T*, int64_t);  \
  template void scale_nontemporal(const T*, const T*, const Scale<const compute_t<T>*>&, T*, int64_t); \
  NK_KINDS(T, compute_t<T>)
template void scale_activated(const float*, const float*, const Scale<Same<float>>&, Activation, float*, int64_t, bool);
template void scale_activated(const float*, const float*, const Scale<const float*>&, Activation, float*, int64_t,
                              bool);
template void rstd_tile(const double*, double, double*, int64_t);
template void rstd_tile(const float*, double, float*, int64_t);
NK_CHANNELS(double)
NK_CHANNELS(float)
NK_CHANNELS(bfloat16)
NK_CHANNELS(float16)
NK_KINDS(bfloat16, bfloat16)
NK_KINDS(float16, float16)
NK_WIDE(float, float)
NK_WIDE(bfloat16, float)
NK_WIDE(float16, float)
NK_WIDE(bfloat16, bfloat16)
NK_WIDE(float16, float16)
template void blend_nontemporal(const bfloat16*, const float*, const Blend<Same<float>>&, float*, int64_t);
template void blend_nontemporal(const float16*, const float*, const Blend<Same<float>>&, float*, int64_t);

}  // namespace normkernels
