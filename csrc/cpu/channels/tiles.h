// Mathematics on tiles whose elements share a channel (a run of one plane) or lie one per channel (a row of channels).
#pragma once

#include "cpu/base/tiles.h"

namespace normkernels {

// A coefficient that is the same for the whole tile, where a pointer gives one for each element.
template <class C>
struct Same {
  C value;
  NK_INLINE C operator[](int64_t) const { return value; }
};

// Activations that only let through or scale: cheap enough to be part of every loop.
enum class Gate { none, relu, leaky_relu };

// u = gate((x - mean) * scale + shift + skip); slope: of leaky_relu
template <class K>
struct Scale {
  K mean, scale, shift;
  Gate gate = Gate::none;
  double slope = 0;
};

// dx = a * du + b * (x - mean) + c
template <class K>
struct Blend {
  K mean, a, b, c;
};

// u, as the compute type or rounded to T; skip may be null
template <class T, class K, class Out>
void scale_tile(const T* x, const T* skip, const Scale<K>& k, Out* u, int64_t n);

// du = dy * gate'(u), as the compute type or T
template <class T, class K, class Out>
void gate_tile(const T* dy, const T* x, const T* skip, const Scale<K>& k, Out* du, int64_t n);

// dx = a * du + b * (x - mean) + c
template <class T, class K, class D>
void blend_tile(const D* du, const T* x, const Blend<K>& k, T* dx, int64_t n);

// gate_tile and blend_tile for so many adjacent planes of n positions, each with coefficients of its own
template <class T>
void gate_planes(const T* dy, const T* x, const T* skip, const Scale<Same<compute_t<T>>>* k, T* du, int64_t planes,
                 int64_t n);
template <class T>
void blend_planes(const T* du, const T* x, const Blend<Same<compute_t<T>>>* k, T* dx, int64_t planes, int64_t n);

// The same for results that will have left the caches before anybody reads them; nontemporal_fence() orders them.
template <class T, class K>
void scale_nontemporal(const T* x, const T* skip, const Scale<K>& k, T* y, int64_t n);
template <class T>
void store_nontemporal(const compute_t<T>* tile, T* y, int64_t n);
template <class T, class K, class D>
void blend_nontemporal(const D* du, const T* x, const Blend<K>& k, T* dx, int64_t n);

// rstd = (var + eps)^(-1/2), taken in double
template <class C>
void rstd_tile(const C* var, double eps, C* rstd, int64_t n);

}  // namespace normkernels
