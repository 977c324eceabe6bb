// Loops over rows of 16 bits, two vectors at a time, backward.
#include "cpu/rows/backward.h"
#include "cpu/rows/paired.h"
#include "cpu/rows/registers.h"

namespace normkernels {
#if defined(NK_TWOS)
namespace {

constexpr int64_t kAhead = 16384;  // elements: how far ahead memory is asked for

// The means of g and of g * xhat of a row, from its du
template <class V, class T, class D>
NK_INLINE Pair<float> means_of(const RowsBackward<T>& a, int64_t m, const KnownRow<float>& known, const D* du) {
  const T* x = a.x + m * a.x_stride;
  const float *w = a.affine.weight, n = static_cast<float>(a.N);
  const Pair<float> sums = sums_of_parts(a.N, [&](int64_t first, int64_t columns) NK_INLINED {
    Sum<V> of_g, of_g_xhat;
    each_twos<V>(columns, [&](int64_t i, int64_t k) NK_INLINED {
      const int64_t j = first + i;
      Twos<V> g = twos<V>(du + j);
      if (w) g = g * twos<V>(w + j);
      add(g, of_g, k);
      add(g * normalised_twos<V>(x, known, nullptr, nullptr, j), of_g_xhat, k);
    });
    return Pair<float>{of_g.total(), of_g_xhat.total()};
  });
  return {a.mean ? sums.a / n : 0.f, sums.b / n};
}

// kRows rows from m on; du: the gradient of what the activation is given
template <class V, int64_t kRows, bool kStream, class T, class D>
NK_INLINE void backward_rows(const RowsBackward<T>& a, int64_t m, int64_t block, const KnownRow<float>* known,
                             const D* du, int64_t du_stride) {
  const int64_t N = a.N, ahead = std::min(m + std::max(kRows, kAhead / N), a.M - kRows);
  const float* w = a.affine.weight;
  float *dw = a.dweight ? a.dweight + block * N : nullptr, *db = a.dbias ? a.dbias + block * N : nullptr;
  Pair<float> means[kRows];
  for (int64_t r = 0; r < kRows; r++) means[r] = means_of<V>(a, m + r, known[r], du + r * du_stride);
  for (int64_t j = 0; j < N; j += kWidth<Twos<V>>) {
    Twos<V> to_w = {}, to_b = {};
    if (dw) to_w = twos<V>(dw + j);
    if (db) to_b = twos<V>(db + j);
    for (int64_t r = 0; r < kRows; r++) {
      __builtin_prefetch(a.x + (ahead + r) * a.x_stride + j, 0, 2);
      __builtin_prefetch(a.dy + (ahead + r) * a.dy_stride + j, 0, 2);
      if (a.dsummed) __builtin_prefetch(a.dsummed + (ahead + r) * a.dsummed_stride + j, 0, 2);
      const Twos<V> d = twos<V>(du + r * du_stride + j);
      const Twos<V> h = normalised_twos<V>(a.x + (m + r) * a.x_stride, known[r], nullptr, nullptr, j);
      to_w = to_w + d * h;
      to_b = to_b + d;
      Twos<V> g = w ? d * twos<V>(w + j) : d;
      g = (g - means[r].a - h * means[r].b) * known[r].rstd;
      if (a.dsummed) g = g + twos<V>(a.dsummed + (m + r) * a.dsummed_stride + j);
      put<kStream>(g, a.dx + (m + r) * N + j);
    }
    if (dw) put(to_w, dw + j);
    if (db) put(to_b, db + j);
  }
}

// du of row m from dy, which lies there, through the gate: u, du and g are laid out
template <class V, bool kStream, class T>
NK_INLINE void through_gate(const RowsBackward<T>& a, int64_t m, const float* u, float* du, float* g) {
  const T* const gate = a.gate + m * a.gate_stride;
  for (int64_t j = 0; j < a.N; j += kWidth<Twos<V>>) put(twos<V>(gate + j), g + j);
  gate_backward_tile(a.affine.activation, a.affine.slope, g, u, du, a.dgate ? g : nullptr, a.N);
  for (int64_t j = 0; j < a.N && a.dgate; j += kWidth<Twos<V>>) put<kStream>(twos<V>(g + j), a.dgate + m * a.N + j);
}

template <class V, int64_t kRows, bool kStream, class T>
NK_INLINE void backward_together(const RowsBackward<T>& a, int64_t m, int64_t block, float* u, float* du, float* g) {
  KnownRow<float> known[kRows];
  for (int64_t r = 0; r < kRows; r++) known[r] = a.row(m + r);
  if (a.plain()) return backward_rows<V, kRows, kStream>(a, m, block, known, a.dy + m * a.dy_stride, a.dy_stride);
  const float *w = a.affine.weight, *b = a.affine.bias;
  for (int64_t r = 0; r < kRows; r++) {
    const T *x = a.x + (m + r) * a.x_stride, *dy = a.dy + (m + r) * a.dy_stride;
    for (int64_t j = 0; j < a.N; j += kWidth<Twos<V>>) {
      put(normalised_twos<V>(x, known[r], w, b, j), u + r * a.N + j);
      put(twos<V>(dy + j), du + r * a.N + j);
    }
  }
  if (a.gate) {
    for (int64_t r = 0; r < kRows; r++) through_gate<V, kStream>(a, m + r, u + r * a.N, du + r * a.N, g);
  } else {
    for_each_tile(0, kRows * a.N, [&](int64_t j, int64_t n) { a.through(m, j, u + j, du + j, n); });
  }
  if (!kStream) prefetch_results(a.dx + m * a.N, kRows * a.N, a.M * a.N);
  backward_rows<V, kRows, kStream>(a, m, block, known, du, a.N);
}

// The rows [begin, end) of a block; weight and bias of a are laid out, and so is its line of the tables.
template <class V, bool kStream, class T>
NK_INLINE void backward_of_block(const RowsBackward<T>& a, int64_t block, int64_t begin, int64_t end) {
  alignas(64) float u[kPairedRow], du[kPairedRow], g[kPairedRow];
  int64_t m = begin;
  const auto some = [&](auto rows, int64_t most) NK_INLINED {
    for (; !a.apart() && a.N <= most && m + rows() <= end; m += rows())
      backward_together<V, rows(), kStream>(a, m, block, u, du, g);
  };
  some(std::integral_constant<int64_t, 4>(), kTile);
  some(std::integral_constant<int64_t, 2>(), 2 * kTile);
  for (; m < end; m++) backward_together<V, 1, kStream>(a, m, block, u, du, g);
}

template <bool kStream, class T>
void backward_of_run(const RowsBackward<T>& a, int64_t block, int64_t begin, int64_t end) {
  if (a.plain() && in_registers(a.N) && a.N <= 2 * kPaired) {
    register_backward<Twos<>>(a, block, begin, end);
  } else {
    with_twos([&](auto bytes) NK_INLINED { backward_of_block<Vector<float, bytes()>, kStream>(a, block, begin, end); });
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
      stream ? backward_of_run<true>(run, block, begin, end) : backward_of_run<false>(run, block, begin, end);
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
