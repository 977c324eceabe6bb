// Gates over a tile: compiled once for every dtype, cloned for every instruction set.
#include "cpu/base/gate.h"

#include <algorithm>

#include "cpu/base/math.h"

namespace normkernels {
namespace {

constexpr int64_t kPiece = 512;  // elements: what is kept of them beside a tile stays in the first-level cache

// f(j, n) for pieces of n elements
template <class F>
NK_INLINE void each_piece(int64_t size, const F& f) {
  for (int64_t j = 0; j < size; j += kPiece) f(j, std::min(kPiece, size - j));
}

// value <- du * value * slope, du <- du * opened, where {opened, slope} = gate(i)
template <class C, class F>
NK_INLINE void through(C* value, C* du, int64_t n, const F& gate) {
#pragma omp simd
  for (int64_t i = 0; i < n; i++) {
    const Pair<C> g = gate(i);
    value[i] = du[i] * value[i] * g.b;
    du[i] *= g.a;
  }
}

// The gates of a piece, and the values: what they become is dgate.
template <class C>
NK_INLINE void backward_piece(Activation f, C slope, C* gate, C* value, C* du, int64_t n) {
  // one exponential for both where most gates are
  if (f == Activation::silu)
    return through(value, du, n, [&](int64_t i) NK_INLINED {
      const auto [s, rest] = sigmoids(gate[i]);
      return Pair<C>{gate[i] * s, s * (C(1) + gate[i] * rest)};
    });
  if (f == Activation::sigmoid)
    return through(value, du, n, [&](int64_t i) NK_INLINED {
      const auto [s, rest] = sigmoids(gate[i]);
      return Pair<C>{s, s * rest};
    });
#pragma omp simd
  for (int64_t i = 0; i < n; i++) value[i] *= du[i];
  times_derivative(f, slope, gate, value, n);
  activate(f, slope, gate, n);
#pragma omp simd
  for (int64_t i = 0; i < n; i++) du[i] *= gate[i];
}

}  // namespace

template <class T>
NK_CLONES void gate_tile(Activation f, compute_t<T> slope, const T* gate, compute_t<T>* u, int64_t size) {
  alignas(64) compute_t<T> g[kPiece];
  each_piece(size, [&](int64_t j, int64_t n) NK_INLINED {
    load_tile(gate + j, g, n);
    activate(f, slope, g, n);
#pragma omp simd
    for (int64_t i = 0; i < n; i++) u[j + i] *= g[i];
  });
}

template <class T>
NK_CLONES void gate_backward_tile(Activation f, compute_t<T> slope, const T* gate, const compute_t<T>* u,
                                  compute_t<T>* du, T* dgate, int64_t size, bool nontemporal) {
  if (!dgate) return gate_tile(f, slope, gate, du, size);
  using C = compute_t<T>;
  alignas(64) C g[kPiece], value[kPiece];
  each_piece(size, [&](int64_t j, int64_t n) NK_INLINED {
    load_tile(gate + j, g, n);
    std::copy_n(u + j, n, value);
    backward_piece(f, slope, g, value, du + j, n);
    if constexpr (std::is_same_v<T, C>) {
      if (nontemporal) return copy_nontemporal(value, dgate + j, n * sizeof(T));
    }
    store_tile(value, dgate + j, n);
  });
}

#define NK_GATE(T)                                                                                             \
  template void gate_tile(Activation, compute_t<T>, const T*, compute_t<T>*, int64_t);                         \
  template void gate_backward_tile(Activation, compute_t<T>, const T*, const compute_t<T>*, compute_t<T>*, T*, \
                                   int64_t, bool);
NK_GATE(double)
NK_GATE(float)
NK_GATE(bfloat16)
NK_GATE(float16)

}  // namespace normkernels
