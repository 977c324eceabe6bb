// Activations that are part of the loop that writes y: what most models have after a norm.
#pragma once

#include <type_traits>

#include "cpu/base/math.h"
#include "cpu/base/tiles.h"

namespace normkernels {

inline bool is_in_loops(Activation f) { return f == Activation::silu || f == Activation::gelu; }

template <Activation f, class V>
NK_INLINE V activated(const V& u) {
  if constexpr (f == Activation::silu) return silu(u);
  if constexpr (f == Activation::gelu) return gelu(u);
  return u;
}

// use(f, as a type): one of those, or the identity; of elements T
template <class T, class F>
NK_INLINE void with_activation(Activation f, const F& use) {
  if constexpr (!std::is_same_v<T, double>) {
    if (f == Activation::silu) return use(std::integral_constant<Activation, Activation::silu>());
    if (f == Activation::gelu) return use(std::integral_constant<Activation, Activation::gelu>());
  }
  use(std::integral_constant<Activation, Activation::identity>());
}

}  // namespace normkernels
