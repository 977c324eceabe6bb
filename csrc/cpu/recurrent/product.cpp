// The product with a matrix laid out in panels of its columns: a panel is read row by row, with the sums in registers.
#include "cpu/recurrent/product.h"

#include "cpu/base/few.h"

#if defined(NK_SHUFFLES)
namespace normkernels {
namespace {

// Sums that the registers hold, and what they are made of: AVX-512 and aarch64 have twice as many.
#if defined(__aarch64__)
template <class V>
constexpr int64_t kSums = 16;
#else
template <class V>
constexpr int64_t kSums = sizeof(V) == 64 ? 16 : 8;
#endif

// kRows rows with one panel, of which `columns` columns are kept
template <class V, int64_t kRows, class C>
NK_INLINE void multiply_block(const C* a, const C* panel, C* out, int64_t K, int64_t N, int64_t columns) {
  constexpr int64_t kWide = kPanel / kWidth<V>;
  V sums[kRows][kWide] = {};
  for (int64_t k = 0; k < K; k++) {
    V row[kWide];
    for (int64_t w = 0; w < kWide; w++) row[w] = take<V>(panel + k * kPanel + w * kWidth<V>);
    for (int64_t r = 0; r < kRows; r++)
      for (int64_t w = 0; w < kWide; w++) sums[r][w] += row[w] * a[r * K + k];
  }
  for (int64_t r = 0; r < kRows; r++) {
    if (columns == kPanel) {
      for (int64_t w = 0; w < kWide; w++) put(sums[r][w], out + r * N + w * kWidth<V>);
    } else {
      std::memcpy(out + r * N, sums[r], columns * sizeof(C));
    }
  }
}

template <class V, class C>
NK_INLINE void multiply_panels(const C* a, const C* panels, C* out, int64_t M, int64_t K, int64_t N, int64_t begin,
                               int64_t end) {
  for (int64_t p = begin; p < end; p++) {
    const C* panel = panels + p * K * kPanel;
    C* const to = out + p * kPanel;
    const int64_t columns = std::min(kPanel, N - p * kPanel);
    int64_t m = 0;
    const auto rows = [&](auto count) NK_INLINED {
      if constexpr (count() == 1 || count() * kPanel <= kSums<V> * kWidth<V>)
        for (; m + count() <= M; m += count()) multiply_block<V, count()>(a + m * K, panel, to + m * N, K, N, columns);
    };
    rows(std::integral_constant<int64_t, 8>());
    rows(std::integral_constant<int64_t, 4>());
    rows(std::integral_constant<int64_t, 2>());
    rows(std::integral_constant<int64_t, 1>());
  }
}

}  // namespace

template <class C>
void lay_out(const C* b, int64_t K, int64_t N, int64_t stride_k, int64_t stride_n, C* panels) {
  constexpr int64_t kSquare = 16;  // rows and columns at a time, so that both sides are read by the cache line
  for (int64_t j = 0; j < N; j += kPanel, panels += K * kPanel) {
    const int64_t columns = std::min(kPanel, N - j);
    for (int64_t k = 0; k < K; k += kSquare)
      for (int64_t c = 0; c < columns; c++)
        for (int64_t i = k; i < std::min(k + kSquare, K); i++)
          panels[i * kPanel + c] = b[i * stride_k + (j + c) * stride_n];
  }
}

template <class C>
void multiply(const C* a, const C* panels, C* out, int64_t M, int64_t K, int64_t N, int64_t begin, int64_t end) {
  with_vectors([=](auto bytes)
                   NK_INLINED { multiply_panels<Vector<C, bytes()>>(a, panels, out, M, K, N, begin, end); });
}

#define NK_PRODUCT(C)                                                      \
  template void lay_out(const C*, int64_t, int64_t, int64_t, int64_t, C*); \
  template void multiply(const C*, const C*, C*, int64_t, int64_t, int64_t, int64_t, int64_t);
NK_PRODUCT(float)
NK_PRODUCT(double)

}  // namespace normkernels
#endif
