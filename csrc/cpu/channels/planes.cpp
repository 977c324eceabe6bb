// Loops over adjacent planes that are too small for a call each.
#include "cpu/channels/twos.h"

namespace normkernels {

namespace {

template <class C>
NK_INLINE Scale<Same<C>> of_plane(const Scale<const C*>& k, int64_t p) {
  return {{k.mean[p]}, {k.scale[p]}, {k.shift[p]}, k.gate, k.slope};
}

template <class V, class T, class Out>
NK_INLINE void scale_each(const T* x, const T* skip_planes, const Scale<const compute_t<T>*>& scales, Out* u,
                          int64_t planes, int64_t n, int64_t results) {
  using C = compute_t<T>;
  const C slope = static_cast<C>(scales.slope);
  for (int64_t p = 0; p < planes; p++) {
    const auto k = of_plane(scales, p);
    const T *from = x + p * n, *skip = skip_planes ? skip_planes + p * n : nullptr, *second = skip ? skip : from;
    Out* const to = u + p * n;
    prefetch_results(to, n, results);
#if defined(NK_TWOS)
    if constexpr (kWords<T, Same<C>, Out> && sizeof(V) >= 32) {
      if (n >= kWidth<Twos<V>>) {
        scale_with<V, false>(from, skip, k, to, n);
        continue;
      }
    }
#endif
#if defined(NK_SHUFFLES)
    if (n >= kFewLanes) {
      NK_FOR_EACH_GATE(map_few<V>(to, n, [=](int64_t j) NK_INLINED {
        const V v = scaled<kSkip>(k, 0, take<V>(from + j), take<V>(second + j));
        return through<kGate>(v, v, slope);
      }))
      continue;
    }
#endif
    NK_FOR_EACH_GATE(map(to, n, [=](int64_t i) NK_INLINED {
      const C v = scaled<kSkip>(k, i, C(load(from[i])), C(load(second[i])));
      return through<kGate>(v, v, slope);
    }))
  }
}

template <class V, class T, class D>
NK_INLINE void blend_each(const D* du, const T* x, const Blend<const compute_t<T>*>& k, T* dx, int64_t planes,
                          int64_t n, int64_t results) {
  using C = compute_t<T>;
  for (int64_t p = 0; p < planes; p++) {
    const Blend<Same<C>> of_plane = {{k.mean[p]}, {k.a[p]}, {k.b[p]}, {k.c[p]}};
    const auto f = blended(of_plane);
    const int64_t first = p * n;
    prefetch_results(dx + first, n, results);
#if defined(NK_TWOS)
    if constexpr (kWords<T, Same<C>, D> && sizeof(V) >= 32) {
      if (n >= kWidth<Twos<V>>) {
        blend_with<V, false>(du + first, x + first, of_plane, dx + first, n);
        continue;
      }
    }
#endif
#if defined(NK_SHUFFLES)
    if (n >= kFewLanes) {
      map_few<V>(dx + first, n,
                 [=](int64_t j) NK_INLINED { return f(0, take<V>(du + first + j), take<V>(x + first + j)); });
      continue;
    }
#endif
    map(dx + first, n, [=](int64_t i) NK_INLINED { return f(i, load(du[first + i]), load(x[first + i])); });
  }
}

}  // namespace

template <class T, class Out>
void scale_planes(const T* x, const T* skip, const Scale<const compute_t<T>*>& k, Out* u, int64_t planes, int64_t n,
                  int64_t results) {
  with_vectors([=](auto bytes)
                   NK_INLINED { scale_each<Vector<compute_t<T>, bytes()>>(x, skip, k, u, planes, n, results); });
}

template <class T>
NK_CLONES void gate_planes(const T* dy, const T* x, const T* skip, const Scale<const compute_t<T>*>& k, T* du,
                           int64_t planes, int64_t n) {
  for (int64_t p = 0, at = 0; p < planes; p++, at += n)
    gate_tile(dy + at, x + at, skip ? skip + at : nullptr, of_plane(k, p), du + at, n);
}

template <class T, class D>
void blend_planes(const D* du, const T* x, const Blend<const compute_t<T>*>& k, T* dx, int64_t planes, int64_t n,
                  int64_t results) {
  with_vectors([=](auto bytes)
                   NK_INLINED { blend_each<Vector<compute_t<T>, bytes()>>(du, x, k, dx, planes, n, results); });
}

#define NK_OUT(T, Out)                                                                                                \
  template void scale_planes(const T*, const T*, const Scale<const compute_t<T>*>&, Out*, int64_t, int64_t, int64_t); \
  template void blend_planes(const Out*, const T*, const Blend<const compute_t<T>*>&, T*, int64_t, int64_t, int64_t);
#define NK_PLANES(T) \
  NK_OUT(T, T)       \
  template void gate_planes(const T*, const T*, const T*, const Scale<const compute_t<T>*>&, T*, int64_t, int64_t);
NK_PLANES(double)
NK_PLANES(float)
NK_PLANES(bfloat16)
NK_PLANES(float16)
NK_OUT(bfloat16, float)
NK_OUT(float16, float)

}  // namespace normkernels
