// Loops that add up runs of a plane, and planes that are too small for a call each.
#include "cpu/base/moments.h"
#include "cpu/channels/plane_terms.h"
#include "cpu/channels/tiles.h"

namespace normkernels {
namespace {

// Both sums of a plane, of as many elements at a time as V has
template <class V, class F>
NK_INLINE Pair<Element<V>> elements(const F& f, int64_t n) {
  using C = Element<V>;
#if defined(NK_SHUFFLES)
  if (n >= kFewLanes) {
    Sum<V> a, b;
    each_few<V>(n, [&](int64_t j, int64_t k) NK_INLINED {
      const auto v = f.template few<V>(j);
      a.part[k] += v.a;
      b.part[k] += v.b;
    });
    if (n % kWidth<V>) {
      const auto last = fresh<V>(n);
      const auto v = f.template few<V>(n - kWidth<V>);
      a.part[3] += last ? v.a : V{};
      b.part[3] += last ? v.b : V{};
    }
    return {a.total(), b.total()};
  }
#endif
  const auto one = [=](int64_t i) NK_INLINED { return f.one(i); };
  return n < kLanes ? sum_pairs<C, kFewLanes>(n, one) : sum_pairs<C>(n, one);
}

// 16 bits, two vectors at a time, and what is left after the last of them.
#if defined(NK_TWOS)
template <class V, class F>
NK_INLINE Pair<float> words(const F& f, int64_t n) {
  const int64_t whole = n / kWidth<Twos<V>> * kWidth<Twos<V>>;
  Sum<V> a, b;
  each_twos<V>(whole, [&](int64_t j, int64_t k) NK_INLINED {
    const Pair<Twos<V>> v = f.template two<V>(j);
    add(v.a, a, k);
    add(v.b, b, k);
  });
  const Pair<float> rest = elements<V>(f.from(whole), n - whole);
  return {a.total() + rest.a, b.total() + rest.b};
}
#endif

constexpr int64_t kCall = 4 * kLanes;  // elements: fewer are not worth a call

// Both sums of a plane: 16 bits by words where there are enough of them
template <class V, class F>
NK_INLINE Pair<Element<V>> sums_of(const F& f, int64_t n) {
#if defined(NK_TWOS)
  if constexpr (F::kWords && sizeof(V) >= 32)
    if (n >= kCall) return words<V>(f, n);
#endif
  return elements<V>(f, n);
}
template <class C, class F>
Pair<C> sums_on_any(const F& f, int64_t n) {
  Pair<C> sums;
  with_vectors([&](auto bytes) NK_INLINED { sums = sums_of<Vector<C, bytes()>>(f, n); });
  return sums;
}

}  // namespace

template <class T>
Moments moments_about(const T* x, compute_t<T> about, int64_t n, double eps) {
  using C = compute_t<T>;
  return moments_by([=](C centre) { return sums_on_any<C>(Squares<T>{x, centre}, n); }, x, about, n, eps);
}

template <class T, class D>
Pair<compute_t<T>> sums_about(const D* du, const T* x, compute_t<T> mean, int64_t n) {
  return sums_on_any<compute_t<T>>(Products<T, D>{du, x, mean}, n);
}

namespace {

#if defined(NK_SHUFFLES)
// Both sums of a plane, in lanes, and of 16 bits, by words: last are the lanes that are new in the last ones.
template <class V, class F>
NK_INLINE Pair<V> lanes_of(const F& f, int64_t n, const Fresh<V>& last) {
  Pair<V> sums = {};
  int64_t j = 0;
  for (; j + kWidth<V> <= n; j += kWidth<V>) {
    const auto v = f.template few<V>(j);
    sums.a += v.a;
    sums.b += v.b;
  }
  if (n % kWidth<V>) {
    const auto v = f.template few<V>(n - kWidth<V>);
    sums.a += last ? v.a : V{};
    sums.b += last ? v.b : V{};
  }
  return sums;
}
#if defined(NK_TWOS)
template <class V, class T, class F>
NK_INLINE Pair<V> lanes_of(const F& f, int64_t n, const FreshTwos<V, T>& last) {
  constexpr int64_t kStep = kWidth<Twos<V>>;
  Twos<V> a, b;
  int64_t j = 0;
  for (; j + kStep <= n; j += kStep) {
    const auto v = f.template two<V>(j);
    a = a + v.a;
    b = b + v.b;
  }
  if (n % kStep) {
    const auto v = f.template two<V>(n - kStep);
    a = a + last.of(v.a);
    b = b + last.of(v.b);
  }
  return {a.even + a.odd, b.even + b.odd};
}
#endif

// Of half as many planes as there are lanes: as many sums, whose lanes are added up together. of(p): what plane p adds.
template <class V>
constexpr int64_t kTogether = kWidth<V> / 2;
template <class V, class L, class F>
NK_INLINE void sums_together(int64_t n, const L& last, const F& of, Element<V>* a, Element<V>* b) {
  V parts[kWidth<V>];
#pragma GCC unroll 8
  for (int64_t p = 0; p < kTogether<V>; p++) {
    const Pair<V> sums = lanes_of<V>(of(p), n, last);
    parts[p] = sums.a;
    parts[kTogether<V> + p] = sums.b;
  }
  const V sums = add_up_each(parts);
  using Half = std::make_integer_sequence<int64_t, kTogether<V>>;
  put(picked<0, 1>(sums, sums, Half()), a);
  put(picked<kTogether<V>, 1>(sums, sums, Half()), b);
}
#endif

// Both sums of so many planes
template <class V, class F>
NK_INLINE void sums_of_each(int64_t planes, int64_t n, const F& of, Element<V>* a, Element<V>* b) {
  int64_t p = 0;
#if defined(NK_SHUFFLES)
  const auto together = [&](const auto& last) NK_INLINED {
    for (; p + kTogether<V> <= planes; p += kTogether<V>)
      sums_together<V>(n, last, [&](int64_t k) NK_INLINED { return of(p + k); }, a + p, b + p);
    if (p == planes) return;
    // Those that are left are added up in the same order, beside copies of the last: a plane's bits are its own.
    Element<V> rest[2][kTogether<V>];
    sums_together<V>(n, last, [&](int64_t k) NK_INLINED { return of(std::min(p + k, planes - 1)); }, rest[0], rest[1]);
    std::copy_n(rest[0], planes - p, a + p);
    std::copy_n(rest[1], planes - p, b + p);
  };
#if defined(NK_TWOS)
  using Terms = decltype(of(0));
  if constexpr (Terms::kWords && sizeof(V) >= 32)
    if (n >= kWidth<Twos<V>> && n < kOneByOne) return together(FreshTwos<V, typename Terms::Type>(n));
#endif
  if (n >= kFewLanes && n < kOneByOne) return together(fresh<V>(n));
#endif
  for (; p < planes; p++) {
    const auto sums = sums_of<V>(of(p), n);
    a[p] = sums.a;
    b[p] = sums.b;
  }
}

}  // namespace

template <class T, class D>
void sums_of_planes(const D* du, const T* x, const compute_t<T>* mean, int64_t planes, int64_t n, compute_t<T>* a,
                    compute_t<T>* b) {
  const auto of = [=](int64_t p) NK_INLINED { return Products<T, D>{du + p * n, x + p * n, mean[p]}; };
  with_vectors([=](auto bytes) NK_INLINED { sums_of_each<Vector<compute_t<T>, bytes()>>(planes, n, of, a, b); });
}

template <class T>
void moments_of_planes(const T* x, const compute_t<T>* about, int64_t planes, int64_t n, compute_t<T>* a,
                       compute_t<T>* b) {
  const auto of = [=](int64_t p) NK_INLINED { return Squares<T>{x + p * n, about[p]}; };
  with_vectors([=](auto bytes) NK_INLINED { sums_of_each<Vector<compute_t<T>, bytes()>>(planes, n, of, a, b); });
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
