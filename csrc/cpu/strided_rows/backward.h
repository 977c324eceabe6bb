// Rows whose units lie a stride apart, backward.
#pragma once

#include "cpu/strided_rows/forward.h"

namespace normkernels {

template <class T>
struct StridedRowsBackward {
  using C = compute_t<T>;
  Slices slices;
  const T *dy, *dsummed, *x;  // dsummed: or null
  Affine<C> affine;
  const C *mean, *rstd;
  T* dx;
  C *dweight = nullptr, *dbias = nullptr;  // (blocks, N) tables, or null

  // Strips are summed block by block into a line of the tables; how many blocks depends on the shape alone.
  int64_t blocks() const { return std::clamp<int64_t>(slices.B * slices.strips() / 8, 1, 64); }
  int64_t first_strip(int64_t block) const { return block * slices.B * slices.strips() / blocks(); }

  // Call f with unit k of du = dy * act'(u): dy itself without an activation.
  template <class F>
  void with_du(int64_t k, int64_t at, StripBuffers<C>& buffers, int64_t n, const F& f) const {
    if (affine.activation == Activation::identity) return f(dy + at);
    const C w = affine.weight ? affine.weight[k] : C(1), b = affine.bias ? affine.bias[k] : C(0);
    affine_strip(x + at, buffers.strip, w, b, buffers.u, n);
    load_tile(dy + at, buffers.du, n);
    times_derivative(affine.activation, affine.slope, buffers.u, buffers.du, n);
    f(static_cast<const C*>(buffers.du));
  }

  void strip(int64_t at, int64_t statistics, int64_t n, C* dw, C* db) const {
    const int64_t N = slices.N, S = slices.S;
    const C* mu = mean + statistics;
    StripBuffers<C> buffers(mu, rstd + statistics);
    if (buffers.far(n)) {
      buffers.sum_units(N, n, [&](int64_t k) { centred_sums(x + at + k * S, mu, buffers.a, buffers.b, n); });
      buffers.put_shift(n, [&](int64_t i) { return buffers.total_a[i] / N; });
    }
    buffers.sum_units(N, n, [&](int64_t k) {
      with_du(k, at + k * S, buffers, n, [&](const auto* du) {
        gradient_strip(du, x + at + k * S, buffers.strip, affine.weight ? affine.weight[k] : C(1), dw[k], db[k], n);
      });
    });
    for (int64_t i = 0; i < n; i++) {
      buffers.a[i] = static_cast<C>(buffers.total_a[i] / N);
      buffers.b[i] = static_cast<C>(buffers.total_b[i] / N);
    }
    for (int64_t k = 0; k < N; k++) {
      const T* d = dsummed ? dsummed + at + k * S : nullptr;
      with_du(k, at + k * S, buffers, n, [&](const auto* du) {
        input_gradient_strip(du, x + at + k * S, d, buffers.strip, affine.weight ? affine.weight[k] : C(1),
                             dx + at + k * S, n);
      });
    }
  }
};

template <class T>
void backward(const StridedRowsBackward<T>& a) {
  using C = compute_t<T>;
  const int64_t N = a.slices.N;
  for_each(a.blocks(), [&](int64_t block) {
    Scratch<C> dw(N), db(N);
    for (int64_t k = a.first_strip(block); k < a.first_strip(block + 1); k++)
      a.slices.strip(k, [&](int64_t at, int64_t m, int64_t n) { a.strip(at, m, n, dw.data(), db.data()); });
    if (a.dweight) std::copy(dw.begin(), dw.end(), a.dweight + block * N);
    if (a.dbias) std::copy(db.begin(), db.end(), a.dbias + block * N);
  });
}

}  // namespace normkernels
