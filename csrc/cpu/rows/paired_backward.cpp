// Loops over rows of 16 bits, 32 elements at a time, backward.
#include "cpu/rows/backward.h"
#include "cpu/rows/paired.h"
#include "cpu/rows/registers.h"

namespace normkernels {
#if defined(NK_TWOS)
namespace {

constexpr int64_t kAhead = 16384;  // elements: how far ahead memory is asked for

// The means of g and of g * xhat of a row, from its du
template <class T, class D>
NK_INLINE Pair<float> means_of(const RowsBackward<T>& a, int64_t m, const KnownRow<float>& known, const D* du) {
  const T* x = a.x + m * a.x_stride;
  const float *w = a.affine.weight, n = static_cast<float>(a.N);
  const Pair<float> sums = sums_of_parts(a.N, [&](int64_t first, int64_t columns) NK_INLINED {
    Sum<Few<float>> of_g, of_g_xhat;
    each_twos(columns, [&](int64_t i, int64_t k) NK_INLINED {
      const int64_t j = first + i;
      Twos<> g = twos(du + j);
      if (w) g = g * twos(w + j);
      add(g, of_g, k);
      add(g * normalised_twos(x, known, nullptr, nullptr, j), of_g_xhat, k);
    });
    return Pair<float>{of_g.total(), of_g_xhat.total()};
  });
  return {a.mean ? sums.a / n : 0.f, sums.b / n};
}

// kRows rows from m on; du: the gradient of what the activation is given
template <int64_t kRows, bool kStream, class T, class D>
NK_INLINE void backward_rows(const RowsBackward<T>& a, int64_t m, int64_t block, const KnownRow<float>* known,
                             const D* du, int64_t du_stride) {
  const int64_t N = a.N, ahead = std::min(m + std::max(kRows, kAhead / N), a.M - kRows);
  const float* w = a.affine.weight;
  float *dw = a.dweight ? a.dweight + block * N : nullptr, *db = a.dbias ? a.dbias + block * N : nullptr;
  Pair<float> means[kRows];
  for (int64_t r = 0; r < kRows; r++) means[r] = means_of(a, m + r, known[r], du + r * du_stride);
  for (int64_t j = 0; j < N; j += kPaired) {
    Twos<> to_w = {}, to_b = {};
    if (dw) to_w = twos(dw + j);
    if (db) to_b = twos(db + j);
    for (int64_t r = 0; r < kRows; r++) {
      __builtin_prefetch(a.x + (ahead + r) * a.x_stride + j, 0, 2);
      __builtin_prefetch(a.dy + (ahead + r) * a.dy_stride + j, 0, 2);
      if (a.dsummed) __builtin_prefetch(a.dsummed + (ahead + r) * a.dsummed_stride + j, 0, 2);
      const Twos<> d = twos(du + r * du_stride + j);
      const Twos<> h = normalised_twos(a.x + (m + r) * a.x_stride, known[r], nullptr, nullptr, j);
      to_w = to_w + d * h;
      to_b = to_b + d;
      Twos<> g = w ? d * twos(w + j) : d;
      g = (g - means[r].a - h * means[r].b) * known[r].rstd;
      if (a.dsummed) g = g + twos(a.dsummed + (m + r) * a.dsummed_stride + j);
      put<kStream>(g, a.dx + (m + r) * N + j);
    }
    if (dw) put(to_w, dw + j);
    if (db) put(to_b, db + j);
  }
}

// du of row m from dy, which lies there, through the gate: u, du and g are laid out
template <bool kStream, class T>
NK_INLINE void through_gate(const RowsBackward<T>& a, int64_t m, const float* u, float* du, float* g) {
  const T* const gate = a.gate + m * a.gate_stride;
  for (int64_t j = 0; j < a.N; j += kPaired) put(twos(gate + j), g + j);
  gate_backward_tile(a.affine.activation, a.affine.slope, g, u, du, a.dgate ? g : nullptr, a.N);
  for (int64_t j = 0; j < a.N && a.dgate; j += kPaired) put<kStream>(twos(g + j), a.dgate + m * a.N + j);
}

template <int64_t kRows, bool kStream, class T>
NK_INLINE void backward_together(const RowsBackward<T>& a, int64_t m, int64_t block, float* u, float* du, float* g) {
  KnownRow<float> known[kRows];
  for (int64_t r = 0; r < kRows; r++) known[r] = a.row(m + r);
  if (a.plain()) return backward_rows<kRows, kStream>(a, m, block, known, a.dy + m * a.dy_stride, a.dy_stride);
  const float *w = a.affine.weight, *b = a.affine.bias;
  for (int64_t r = 0; r < kRows; r++) {
    const T *x = a.x + (m + r) * a.x_stride, *dy = a.dy + (m + r) * a.dy_stride;
    for (int64_t j = 0; j < a.N; j += kPaired) {
      put(normalised_twos(x, known[r], w, b, j), u + r * a.N + j);
      put(twos(dy + j), du + r * a.N + j);
    }
  }
  if (a.gate) {
    for (int64_t r = 0; r < kRows; r++) through_gate<kStream>(a, m + r, u + r * a.N, du + r * a.N, g);
  } else {
    for_each_tile(0, kRows * a.N, [&](int64_t j, int64_t n) { a.through(m, j, u + j, du + j, n); });
  }
  if (!kStream) prefetch_results(a.dx + m * a.N, kRows * a.N, a.M * a.N);
  backward_rows<kRows, kStream>(a, m, block, known, du, a.N);
}

// The rows [begin, end) of a block; weight and bias of a are laid out, and so is its line of the tables.
template <bool kStream, class T>
NK_AVX512 void backward_of_block(const RowsBackward<T>& a, int64_t block, int64_t begin, int64_t end) {
  alignas(64) float u[kPairedRow], du[kPairedRow], g[kPairedRow];
  int64_t m = begin;
  if (a.plain() && in_registers(a.N) && a.N <= 2 * kPaired) {
    register_backward<Twos<>>(a, block, begin, end);
  } else {
    for (; !a.apart() && a.N <= kTile && m + 4 <= end; m += 4) backward_together<4, kStream>(a, m, block, u, du, g);
    for (; !a.apart() && a.N <= 2 * kTile && m + 2 <= end; m += 2) backward_together<2, kStream>(a, m, block, u, du, g);
    for (; m < end; m++) backward_together<1, kStream>(a, m, block, u, du, g);
  }
  if (kStream) nontemporal_fence();
}

}  // namespace

template <class T>
void paired_backward(const RowsBackward<T>& given) {
  const int64_t values = given.samples * given.N;
  const LaidOut<T> weight(given.affine.weight, values), bias(given.affine.bias, values);
  RowsBackward<T> a = given;
  a.affine.weight = weight.data();
  a.affine.bias = bias.data();
  const bool lines = on_line(a.dx) && on_line(a.dgate);
  const bool stream = large<T>(a.M * a.N, 3) && lines;
  each_block(a, [&](const auto& own, int64_t block) {
    each_run(own, own.first_row(block), own.first_row(block + 1), [&](const auto& run, int64_t begin, int64_t end) {
      stream ? backward_of_block<true>(run, block, begin, end) : backward_of_block<false>(run, block, begin, end);
    });
    for (float* table : {own.dweight, own.dbias})
      if (table) LaidOut<T>::put_back(table + block * a.N, a.N);
  });
}
#else
template <class T>
void paired_backward(const RowsBackward<T>&) {}
#endif
template void paired_backward(const RowsBackward<bfloat16>&);
template void paired_backward(const RowsBackward<float16>&);

}  // namespace normkernels
