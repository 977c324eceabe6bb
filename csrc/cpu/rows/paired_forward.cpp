// Loops over rows of bfloat16, two elements to a word, forward.
#include "cpu/base/moments.h"
#include "cpu/rows/forward.h"
#include "cpu/rows/paired.h"

namespace normkernels {
#if defined(NK_TWOS)
namespace {

constexpr int64_t kAhead = 16384;  // elements: how far ahead memory is asked for

NK_INLINE Moments row_moments(const RowsForward<bfloat16>& a, const bfloat16* x) {
  const auto sums = [&](float centre) NK_INLINED { return sums_of_twos(x, centre, a.N); };
  if (a.mean) return moments_by(sums, x, add_up<float>(few(x)) / kFewLanes, a.N, a.eps);
  const double squares = sums(0).b, count = static_cast<double>(a.N);
  return squares_fit<bfloat16>(squares, a.N, a.eps) ? Moments{count, 0, squares} : wide_moments(x, false, a.N);
}

// y of a row, whose x is there; next: a later row, which is asked for; u: room for a row
template <bool kStream>
NK_INLINE void write_row(const RowsForward<bfloat16>& a, int64_t m, const KnownRow<float>& known, const bfloat16* next,
                         float* u) {
  const int64_t N = a.N;
  const float *w = a.affine.weight, *b = a.affine.bias;
  const bfloat16* const x = a.input(m);
  bfloat16* const y = a.y + m * N;
  const auto each = [&](const auto& keep) NK_INLINED {
    for (int64_t j = 0; j < N; j += kPaired) {
      __builtin_prefetch(next + j, 0, 2);
      keep(j, normalised_twos(x, known, w, b, j));
    }
  };
  if (a.affine.activation == Activation::identity)
    return each([&](int64_t j, const Twos& v) NK_INLINED { put<kStream>(v, y + j); });
  each([&](int64_t j, const Twos& v) NK_INLINED { put(v, u + j); });
  for_each_tile(0, N, [&](int64_t j, int64_t n) { activate(a.affine.activation, a.affine.slope, u + j, n); });
  for (int64_t j = 0; j < N; j += kPaired) put<kStream>(twos(u + j), y + j);
}

// weight and bias of a are laid out.
template <bool kStream>
NK_AVX512 void forward_rows(const RowsForward<bfloat16>& a, int64_t begin, int64_t end) {
  alignas(64) float u[kPairedRow];
  KnownRow<float> known[kGroup];
  const int64_t N = a.N, rows = std::clamp<int64_t>(2 * kTile / N, 1, kGroup), ahead = std::max(rows, kAhead / N);
  for (int64_t first = begin; first < end; first += rows) {
    const int64_t last = std::min(first + rows, end);
    for (int64_t m = first; m < last; m++) {
      if (a.residual) add_tiles(a.x + m * a.x_stride, a.residual + m * a.residual_stride, a.summed + m * N, N);
      known[m - first] = a.finish(m, row_moments(a, a.input(m)));
    }
    for (int64_t m = first; m < last; m++)
      write_row<kStream>(a, m, known[m - first], a.x + std::min(m + ahead, a.M - 1) * a.x_stride, u);
  }
  if (kStream) nontemporal_fence();
}

}  // namespace

void paired_forward(const RowsForward<bfloat16>& given) {
  const LaidOut weight(given.affine.weight, given.N), bias(given.affine.bias, given.N);
  RowsForward<bfloat16> a = given;
  a.affine.weight = weight.data();
  a.affine.bias = bias.data();
  const bool stream = large<bfloat16>(a.M * a.N) && reinterpret_cast<uintptr_t>(a.y) % 64 == 0;
  parallel_for(0, a.M, grain(a.N), [&](int64_t begin, int64_t end) {
    stream ? forward_rows<true>(a, begin, end) : forward_rows<false>(a, begin, end);
  });
}
#else
void paired_forward(const RowsForward<bfloat16>&) {}
#endif

}  // namespace normkernels
