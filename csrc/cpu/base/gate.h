// What a gate does to the values beside it: y = u act(gate), and the gradients of both.
#pragma once

#include "cpu/base/tiles.h"

namespace normkernels {

// u[i] *= f(gate[i])
template <class T>
void gate_tile(Activation f, compute_t<T> slope, const T* gate, compute_t<T>* u, int64_t n);

// dgate[i] = du[i] u[i] f'(gate[i]), where it is wanted: it may be the gate itself; then du[i] *= f(gate[i]).
// nontemporal: dgate is written past the caches, and a fence has to follow.
template <class T>
void gate_backward_tile(Activation f, compute_t<T> slope, const T* gate, const compute_t<T>* u, compute_t<T>* du,
                        T* dgate, int64_t n, bool nontemporal = false);

}  // namespace normkernels
