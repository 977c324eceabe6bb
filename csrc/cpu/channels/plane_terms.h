// What the elements of a plane add to its two sums.
#pragma once

#include "cpu/base/few.h"
#include "cpu/base/twos.h"

namespace normkernels {

// What one element, a few, or twos of them add to both sums of a plane: x - about and its square.
template <class T>
struct Squares {
  using C = compute_t<T>;
  using Type = T;
  static constexpr bool kWords = sizeof(T) == 2;
  const T* x;
  C about;

  NK_INLINE Squares from(int64_t i) const { return {x + i, about}; }
  NK_INLINE Pair<C> one(int64_t i) const {
    const C d = load(x[i]) - about;
    return {d, d * d};
  }
  template <class V>
  NK_INLINE Pair<V> few(int64_t i) const {
    const V d = take<V>(x + i) - about;
    return {d, d * d};
  }
#if defined(NK_TWOS)
  template <class V>
  NK_INLINE Pair<Twos<V>> two(int64_t i) const {
    const Twos<V> d = twos<V>(x + i) - about;
    return {d, d * d};
  }
#endif
};

// The same of du and du * (x - mean).
template <class T, class D>
struct Products {
  using C = compute_t<T>;
  using Type = T;
  static constexpr bool kWords = sizeof(T) == 2 && std::is_same_v<D, T>;
  const D* du;
  const T* x;
  C mean;

  NK_INLINE Products from(int64_t i) const { return {du + i, x + i, mean}; }
  NK_INLINE Pair<C> one(int64_t i) const {
    const C d = load(du[i]);
    return {d, d * (load(x[i]) - mean)};
  }
  template <class V>
  NK_INLINE Pair<V> few(int64_t i) const {
    const V d = take<V>(du + i);
    return {d, d * (take<V>(x + i) - mean)};
  }
#if defined(NK_TWOS)
  template <class V>
  NK_INLINE Pair<Twos<V>> two(int64_t i) const {
    const Twos<V> d = twos<V>(du + i);
    return {d, d * (twos<V>(x + i) - mean)};
  }
#endif
};

}  // namespace normkernels
