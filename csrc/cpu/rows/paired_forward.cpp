// Loops over rows of 16 bits, two vectors at a time, forward.
#include "cpu/rows/stream_forward.h"

namespace normkernels {
#if defined(NK_TWOS)
namespace {

constexpr int64_t kAhead = 16384;  // elements: how far ahead memory is asked for

// y of a row, whose x is there; next: a later row, which is asked for
template <class V, bool kStream, Activation f, class T>
NK_INLINE void write_row(const RowsForward<T>& a, int64_t m, const KnownRow<float>& known, const T* next) {
  constexpr int64_t kStep = kWidth<Twos<V>>;
  const int64_t N = a.N;
  const float *w = a.affine.weight, *b = a.affine.bias;
  const T* const x = a.input(m);
  T* const y = a.y + m * N;
  if (!kStream) prefetch_results(y, N, a.M * N);
  const auto each = [&](int64_t first, int64_t n, const auto& keep) NK_INLINED {
    for (int64_t j = first; j < first + n; j += kStep) {
      __builtin_prefetch(next + j, 0, 2);
      keep(j, normalised_twos<V>(x, known, w, b, j));
    }
  };
  if (f != Activation::identity || a.plain())
    return each(0, N, [&](int64_t j, const Twos<V>& v) NK_INLINED { put<kStream>(activated<f>(v), y + j); });
  for (int64_t first = 0; first < N; first += kTile) {
    const int64_t n = std::min(kTile, N - first);
    alignas(64) float u[kTile], g[kTile];
    each(first, n, [&](int64_t j, const Twos<V>& v) NK_INLINED { put(v, u + j - first); });
    if (a.gate) {
      const T* const gate = a.gate + m * a.gate_stride + first;
      for (int64_t j = 0; j < n; j += kStep) put(twos<V>(gate + j), g + j);
      gate_tile(a.affine.activation, a.affine.slope, g, u, n);
    } else {
      a.complete(m, first, u, n);
    }
    for (int64_t j = 0; j < n; j += kStep) put<kStream>(twos<V>(u + j), y + first + j);
  }
}

// weight and bias of a are laid out; f: what is part of the loop.
template <class V, bool kStream, Activation f, class T>
NK_INLINE void forward_rows(const RowsForward<T>& a, int64_t begin, int64_t end) {
  KnownRow<float> known[kGroup];
  const int64_t N = a.N, rows = std::clamp<int64_t>(2 * kTile / N, 1, kGroup), ahead = std::max(rows, kAhead / N);
  for (int64_t first = begin; first < end; first += rows) {
    const int64_t last = std::min(first + rows, end);
    for (int64_t m = first; m < last; m++) {
      if (a.residual) add_tiles(a.x + m * a.x_stride, a.residual + m * a.residual_stride, a.sum(m), N);
      const T* const x = a.input(m);
      const auto sums = [&](float about) NK_INLINED {
        return sums_of_parts(N, [&](int64_t j, int64_t n) NK_INLINED { return sums_of_twos<V>(x + j, about, n); });
      };
      known[m - first] = a.finish(m, row_moments(a, x, add_up(twos<V>(x).even) / kWidth<V>, sums));
    }
    for (int64_t m = first; m < last; m++)
      write_row<V, kStream, f>(a, m, known[m - first], a.x + std::min(m + ahead, a.M - 1) * a.x_stride);
  }
  if (kStream) nontemporal_fence();
}

}  // namespace

template <class T>
void paired_forward(const RowsForward<T>& given) {
  const int64_t values = given.samples * given.N;
  const LaidOut<T> weight(given.affine.weight, values), bias(given.affine.bias, values);
  RowsForward<T> a = given;
  a.affine.weight = weight.data();
  a.affine.bias = bias.data();
  const bool stream = large<T>(a.M * a.N) && on_line(a.y);
  parallel_for(0, a.M, grain(a.N), [&](int64_t first, int64_t last) {
    each_part(a, first, last, [&](const auto& own, int64_t begin, int64_t end) {
      with_activation<T>(a.in_loop() ? a.affine.activation : Activation::identity, [&](auto f) {
        if (stream && streamed(own)) return stream_forward<f()>(own, begin, end);
        with_twos([&](auto bytes) NK_INLINED {
          stream ? forward_rows<Vector<float, bytes()>, true, f(), T>(own, begin, end)
                 : forward_rows<Vector<float, bytes()>, false, f(), T>(own, begin, end);
        });
      });
    });
  });
}
#else
template <class T>
void paired_forward(const RowsForward<T>&) {}
#endif
template void paired_forward(const RowsForward<bfloat16>&);
template void paired_forward(const RowsForward<float16>&);

}  // namespace normkernels
