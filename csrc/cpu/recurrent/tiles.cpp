// Cells of recurrent layers: compiled once for float and double, cloned for every instruction set.
#include "cpu/recurrent/tiles.h"

#include "cpu/base/math.h"

namespace normkernels {

template <class C>
NK_CLONES void rnn_tile(bool relu, const C* z, C* y, int64_t n) {
  if (relu) {
#pragma omp simd
    for (int64_t k = 0; k < n; k++) y[k] = z[k] < 0 ? C(0) : z[k];
  } else {
#pragma omp simd
    for (int64_t k = 0; k < n; k++) y[k] = tanh(z[k]);
  }
}

template <class C>
NK_CLONES void rnn_backward_tile(bool relu, const C* dy, const C* y, C* dz, int64_t n) {
  if (relu) {
#pragma omp simd
    for (int64_t k = 0; k < n; k++) dz[k] = y[k] > 0 ? dy[k] : C(0);
  } else {
#pragma omp simd
    for (int64_t k = 0; k < n; k++) dz[k] = dy[k] * (1 - y[k] * y[k]);
  }
}

template <class C>
NK_CLONES void lstm_tile(C* z, const C* before, C* c, int64_t n) {
  C *i = z, *f = z + n, *g = z + 2 * n, *o = z + 3 * n;
#pragma omp simd
  for (int64_t k = 0; k < n; k++) {
    i[k] = sigmoid(i[k]);
    f[k] = sigmoid(f[k]);
    g[k] = tanh(g[k]);
    o[k] = sigmoid(o[k]);
    c[k] = f[k] * before[k] + i[k] * g[k];
  }
}

template <class C>
NK_CLONES void lstm_output_tile(const C* o, const C* m, C* h, int64_t n) {
#pragma omp simd
  for (int64_t k = 0; k < n; k++) h[k] = o[k] * tanh(m[k]);
}

template <class C>
NK_CLONES void lstm_output_backward_tile(const C* dh, const C* o, const C* m, C* dm, C* d_o, int64_t n) {
#pragma omp simd
  for (int64_t k = 0; k < n; k++) {
    const C t = tanh(m[k]), d = dh[k];
    dm[k] = d * o[k] * (1 - t * t);
    d_o[k] = d * t;
  }
}

template <class C>
NK_CLONES void lstm_backward_tile(const C* gates, const C* dc, const C* before, C* dz, C* dbefore, int64_t n) {
  const C *i = gates, *f = gates + n, *g = gates + 2 * n, *o = gates + 3 * n;
  C *di = dz, *df = dz + n, *dg = dz + 2 * n, *d_o = dz + 3 * n;
#pragma omp simd
  for (int64_t k = 0; k < n; k++) {
    const C d = dc[k];
    di[k] = d * g[k] * i[k] * (1 - i[k]);
    df[k] = d * before[k] * f[k] * (1 - f[k]);
    dg[k] = d * i[k] * (1 - g[k] * g[k]);
    d_o[k] *= o[k] * (1 - o[k]);
    dbefore[k] = d * f[k];
  }
}

template <bool kInput, class C>
NK_INLINE void gru_loop(C* q, const C* p, const C* before, C* h, int64_t n) {
#pragma omp simd
  for (int64_t k = 0; k < n; k++) {
    const C r = sigmoid(q[k] + (kInput ? p[k] : C(0))), z = sigmoid(q[n + k] + (kInput ? p[n + k] : C(0)));
    const C c = tanh(r * q[2 * n + k] + (kInput ? p[2 * n + k] : C(0)));
    q[k] = r;
    q[n + k] = z;
    q[2 * n + k] = c;
    h[k] = c + z * (before[k] - c);
  }
}

template <class C>
NK_CLONES void gru_tile(C* q, const C* p, const C* before, C* h, int64_t n) {
  p ? gru_loop<true>(q, p, before, h, n) : gru_loop<false>(q, p, before, h, n);
}

template <class C>
NK_CLONES void gru_backward_tile(const C* gates, const C* q, const C* before, const C* dh, C* dq, C* dp, C* direct,
                                 int64_t n) {
#pragma omp simd
  for (int64_t k = 0; k < n; k++) {
    const C r = gates[k], z = gates[n + k], c = gates[2 * n + k], d = dh[k];
    const C dn = d * (1 - z) * (1 - c * c);
    dq[k] = dn * q[k] * r * (1 - r);
    dq[n + k] = d * (before[k] - c) * z * (1 - z);
    dq[2 * n + k] = dn * r;
    dp[k] = dn;
    direct[k] = d * z;
  }
}

#define NK_CELLS(C)                                                                       \
  template void rnn_tile(bool, const C*, C*, int64_t);                                    \
  template void rnn_backward_tile(bool, const C*, const C*, C*, int64_t);                 \
  template void lstm_tile(C*, const C*, C*, int64_t);                                     \
  template void lstm_output_tile(const C*, const C*, C*, int64_t);                        \
  template void lstm_output_backward_tile(const C*, const C*, const C*, C*, C*, int64_t); \
  template void lstm_backward_tile(const C*, const C*, const C*, C*, C*, int64_t);        \
  template void gru_tile(C*, const C*, const C*, C*, int64_t);                            \
  template void gru_backward_tile(const C*, const C*, const C*, const C*, C*, C*, C*, int64_t);
NK_CELLS(float)
NK_CELLS(double)

}  // namespace normkernels
