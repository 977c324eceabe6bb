// Streaming Normalization's L_p scale on tiles: |v|^p and its slope |v|^(p - 1) sign(v), v = x - mean.
#pragma once

#include "cpu/channels/tiles.h"

namespace normkernels {

// The sums over a run of one plane of |v|^p and of |v|^(p - 1) sign(v)
template <class T>
Pair<compute_t<T>> deviation_sums(const T* x, compute_t<T> mean, double p, int64_t n);

// The same added up for each column of a row of channels
template <class T>
void add_deviations(const T* x, const compute_t<T>* mean, double p, compute_t<T>* a, compute_t<T>* b, int64_t n);

// dx = a du + b |v|^(p - 1) sign(v) + c
template <class T, class K, class D>
void blend_deviations(const D* du, const T* x, const Blend<K>& k, double p, T* dx, int64_t n);

}  // namespace normkernels
