// Loops that add up runs of a plane, and planes that are too small for a call each.
#include "cpu/base/few.h"
#include "cpu/base/moments.h"
#include "cpu/base/twos.h"
#include "cpu/channels/tiles.h"

namespace normkernels {
namespace {

template <class C, class F>
NK_INLINE Pair<C> short_or_long(int64_t n, const F& f) {
  return n < kLanes ? sum_pairs<C, kFewLanes>(n, f) : sum_pairs<C>(n, f);
}

}  // namespace

template <class T>
NK_INLINE Pair<compute_t<T>> sums_of_squares(const T* x, compute_t<T> centre, int64_t n) {
  using C = compute_t<T>;
  return short_or_long<C>(n, [=](int64_t i) NK_INLINED {
    const C d = load(x[i]) - centre;
    return Pair<C>{d, d * d};
  });
}

#if defined(NK_SHUFFLES)
template <class V, class T, class D>
NK_INLINE Pair<compute_t<T>> few_sums_about(const D* du, const T* x, compute_t<T> mean, int64_t n) {
  Sum<V> a, b;
  const auto add = [&](const V& d, const V& h, int64_t k) NK_INLINED {
    a.part[k] += d;
    b.part[k] += d * h;
  };
  each_few<V>(n, [&](int64_t j, int64_t k) NK_INLINED { add(take<V>(du + j), take<V>(x + j) - mean, k); });
  if (n % kWidth<V>) {
    const int64_t j = n - kWidth<V>;
    const auto last = fresh<V>(n);
    add(last ? take<V>(du + j) : V{}, last ? take<V>(x + j) - mean : V{}, 3);
  }
  return {a.total(), b.total()};
}
#endif

template <int64_t kBytes, class T, class D>
NK_INLINE Pair<compute_t<T>> plane_sums(const D* du, const T* x, compute_t<T> mean, int64_t n) {
  using C = compute_t<T>;
#if defined(NK_SHUFFLES)
  if (n >= kFewLanes) return few_sums_about<Vector<C, kBytes>>(du, x, mean, n);
#endif
  return short_or_long<C>(n, [=](int64_t i) NK_INLINED {
    const C d = load(du[i]);
    return Pair<C>{d, d * (load(x[i]) - mean)};
  });
}

constexpr int64_t kWords = 4 * kLanes;  // elements: fewer are not worth a call

// 16 bits, 32 elements at a time, and what is left after the last of them.
#if defined(NK_TWOS)
template <class T>
NK_AVX512 Pair<float> squares_of_words(const T* x, float centre, int64_t n) {
  const int64_t whole = n / kPaired * kPaired;
  const Pair<float> a = sums_of_twos(x, centre, whole), b = sums_of_squares(x + whole, centre, n - whole);
  return {a.a + b.a, a.b + b.b};
}
template <class T>
NK_AVX512 Pair<float> sums_of_words(const T* du, const T* x, float mean, int64_t n) {
  const int64_t whole = n / kPaired * kPaired;
  Sum<Few<float>> a, b;
  each_twos(whole, [&](int64_t j, int64_t k) NK_INLINED {
    const Twos d = twos(du + j);
    add(d, a, k);
    add(d * (twos(x + j) - mean), b, k);
  });
  const Pair<float> rest = plane_sums<64>(du + whole, x + whole, mean, n - whole);
  return {a.total() + rest.a, b.total() + rest.b};
}
#endif

// Of any run: 16 bits by words where there are enough of them
template <class T>
NK_INLINE Pair<compute_t<T>> run_squares(const T* x, compute_t<T> centre, int64_t n) {
#if defined(NK_TWOS)
  if constexpr (sizeof(T) == 2)
    if (kAvx512 && n >= kWords) return squares_of_words(x, centre, n);
#endif
  return sums_of_squares(x, centre, n);
}
template <int64_t kBytes, class T, class D>
NK_INLINE Pair<compute_t<T>> run_sums(const D* du, const T* x, compute_t<T> mean, int64_t n) {
#if defined(NK_TWOS)
  if constexpr (sizeof(T) == 2 && std::is_same_v<D, T>)
    if (kAvx512 && n >= kWords) return sums_of_words(du, x, mean, n);
#endif
  return plane_sums<kBytes>(du, x, mean, n);
}

template <class T>
NK_CLONES Moments moments_about(const T* x, compute_t<T> about, int64_t n, double eps) {
  const auto sums = [=](compute_t<T> centre) NK_INLINED { return run_squares(x, centre, n); };
  return moments_by(sums, x, about, n, eps);
}

template <class T, class D>
Pair<compute_t<T>> sums_about(const D* du, const T* x, compute_t<T> mean, int64_t n) {
  Pair<compute_t<T>> sums;
  with_vectors([&](auto bytes) NK_INLINED { sums = run_sums<bytes()>(du, x, mean, n); });
  return sums;
}

#if defined(NK_SHUFFLES)
// Of half as many planes as there are lanes: as many sums, whose lanes are added up together. of(p, j): what a few
// elements of plane p from j on add to both of its sums.
template <class V>
constexpr int64_t kTogether = kWidth<V> / 2;
template <class V, class F>
NK_INLINE void sums_together(int64_t n, const Fresh<V>& last, const F& of, Element<V>* a, Element<V>* b) {
  V parts[kWidth<V>];
#pragma GCC unroll 8
  for (int64_t p = 0; p < kTogether<V>; p++) {
    Pair<V> sums = {};
    int64_t j = 0;
    for (; j + kWidth<V> <= n; j += kWidth<V>) {
      const auto v = of(p, j);
      sums.a += v.a;
      sums.b += v.b;
    }
    if (n % kWidth<V>) {
      const auto v = of(p, n - kWidth<V>);
      sums.a += last ? v.a : V{};
      sums.b += last ? v.b : V{};
    }
    parts[p] = sums.a;
    parts[kTogether<V> + p] = sums.b;
  }
  const V sums = add_up_each(parts);
  using Half = std::make_integer_sequence<int64_t, kTogether<V>>;
  put(picked<0, 1>(sums, sums, Half()), a);
  put(picked<kTogether<V>, 1>(sums, sums, Half()), b);
}
#endif

// Both sums of so many planes: of_few(p, j) as above, of_one(p) of one plane whatever its size
template <class V, class F, class G>
NK_INLINE void sums_of_each(int64_t planes, int64_t n, const F& of_few, const G& of_one, Element<V>* a, Element<V>* b) {
  using C = Element<V>;
  int64_t p = 0;
#if defined(NK_SHUFFLES)
  if (n >= kFewLanes && n < 4 * kLanes) {
    const auto last = fresh<V>(n);
    for (; p + kTogether<V> <= planes; p += kTogether<V>)
      sums_together<V>(n, last, [&](int64_t k, int64_t j) NK_INLINED { return of_few(p + k, j); }, a + p, b + p);
  }
#endif
  for (; p < planes; p++) {
    const Pair<C> sums = of_one(p);
    a[p] = sums.a;
    b[p] = sums.b;
  }
}

template <class T, class D>
void sums_of_planes(const D* du, const T* x, const compute_t<T>* mean, int64_t planes, int64_t n, compute_t<T>* a,
                    compute_t<T>* b) {
  with_vectors([=](auto bytes) NK_INLINED {
    using V = Vector<compute_t<T>, bytes()>;
    sums_of_each<V>(
        planes, n,
        [=](int64_t p, int64_t j) NK_INLINED {
          const V d = take<V>(du + p * n + j);
          return Pair{d, d * (take<V>(x + p * n + j) - mean[p])};
        },
        [=](int64_t p) NK_INLINED { return run_sums<bytes()>(du + p * n, x + p * n, mean[p], n); }, a, b);
  });
}

template <class T>
void moments_of_planes(const T* x, const compute_t<T>* about, int64_t planes, int64_t n, compute_t<T>* a,
                       compute_t<T>* b) {
  with_vectors([=](auto bytes) NK_INLINED {
    using V = Vector<compute_t<T>, bytes()>;
    sums_of_each<V>(
        planes, n,
        [=](int64_t p, int64_t j) NK_INLINED {
          const V d = take<V>(x + p * n + j) - about[p];
          return Pair{d, d * d};
        },
        [=](int64_t p) NK_INLINED { return run_squares(x + p * n, about[p], n); }, a, b);
  });
}

#define NK_GRADIENTS(T, D)                                                           \
  template Pair<compute_t<T>> sums_about(const D*, const T*, compute_t<T>, int64_t); \
  template void sums_of_planes(const D*, const T*, const compute_t<T>*, int64_t, int64_t, compute_t<T>*, compute_t<T>*);
#define NK_SUMS(T)                                                                                                \
  template Moments moments_about(const T*, compute_t<T>, int64_t, double);                                        \
  template void moments_of_planes(const T*, const compute_t<T>*, int64_t, int64_t, compute_t<T>*, compute_t<T>*); \
  NK_GRADIENTS(T, compute_t<T>)
NK_SUMS(double)
NK_SUMS(float)
NK_SUMS(bfloat16)
NK_SUMS(float16)
NK_GRADIENTS(bfloat16, bfloat16)
NK_GRADIENTS(float16, float16)

}  // namespace normkernels
