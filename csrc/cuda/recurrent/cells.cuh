// What the recurrent family shares on the device: what a step is given, and the mathematics of the cells.
#pragma once

#include <algorithm>

#include "cuda/base/affine.cuh"
#include "cuda/base/line_sums.cuh"

namespace normkernels::cuda {

// A step forward of a cell whose gates have H units each: a = weight_hh h is there already.
template <typename T>
struct StepForward {
  const T* input;          // (total, gates H)
  T *h, *y, *a;            // (B, H), the state before and after; (total, H); (rows, gates H)
  Parameter weight, bias;  // (gates H,)
  acc_t<T> eps;
  bool separate;  // normalise a alone; else a + input, which then takes a's place
  int64_t hidden;
  int64_t t, rows, first, own;  // where its rows begin: first, of all steps; own, where one may be all that is kept
};

// A step backward; every buffer has the rows of all steps.
template <typename T>
struct StepBackward {
  const T *dy, *a;
  Parameter weight, bias;
  T *dh, *dinput, *da;  // dh: (B, H); da: that of a, null where it is dinput
  acc_t<T> eps;
  acc_t<T>* partial;  // (2, P, gates H), sums of dq * xhat and of dq, added to step by step; null: not wanted
  int64_t P, hidden;
  int64_t t, rows, first;
};

// An LSTM's part of either; the cells are in the dtype of the arithmetic.
template <typename T>
struct LstmForward {
  T* gates;                          // (rows, 4 H): i, f, g, o
  acc_t<T>*c, *cells, *raw_cells;    // (B, H); (rows, H); raw_cells: where normalised cells are handed on
  Parameter cell_weight, cell_bias;  // (H,)
};
template <typename T>
struct LstmBackward {
  const T* gates;
  const acc_t<T>*cells, *raw_cells, *previous_cells;
  acc_t<T>* dc;  // (B, H)
  Parameter cell_weight, cell_bias;
  acc_t<T>* cell_partial;  // (2, P, H)
};

template <typename A>
__device__ A nonlinearity(A z, bool relu) {
  if (relu) return z < 0 ? A(0) : z;  // a NaN stays a NaN
  return tanh(z);
}

// From the result y alone.
template <typename A>
__device__ A nonlinearity_grad(A dy, A y, bool relu) {
  if (relu) return y > 0 ? dy : A(0);
  return dy * (1 - y * y);
}

// What a GRU's h = n + z (h - n), n = tanh(input + r q) gives back: to what r, z and n are of, to q, and to h.
template <typename A>
struct GruGrads {
  A r, z, n, q, direct;

  __device__ GruGrads(A dh, A r, A z, A n, A q, A previous)
      : r(0), z(dh * (previous - n) * z * (1 - z)), n(dh * (1 - z) * (1 - n * n)), q(0), direct(dh * z) {
    this->r = this->n * q * r * (1 - r);
    this->q = this->n * r;
  }
};

// Of gate G of i, f, g, o, before its sigmoid or tanh: from the gradients of the cell and of o.
template <int G, typename A>
__device__ A lstm_gate_grad(A i, A f, A g, A o, A previous, A dcell, A dout) {
  if constexpr (G == 0) return dcell * g * i * (1 - i);
  if constexpr (G == 1) return dcell * previous * f * (1 - f);
  if constexpr (G == 2) return dcell * i * (1 - g * g);
  if constexpr (G == 3) return dout * o * (1 - o);
}

// body(0), body(1), ...: constants
template <int N, int I = 0, typename Body>
__device__ void for_gates(Body body) {
  if constexpr (I < N) {
    body(std::integral_constant<int, I>());
    for_gates<N, I + 1>(body);
  }
}

}  // namespace normkernels::cuda
