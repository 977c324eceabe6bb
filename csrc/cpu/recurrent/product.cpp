// The product with a matrix laid out in panels of its columns: a panel is read row by row, with the sums in registers.
#include "cpu/recurrent/product.h"

#include "cpu/base/few.h"

#if defined(NK_SHUFFLES)
namespace normkernels {
namespace {

constexpr int64_t kWide = kPanel / kFewLanes;

// kRows rows with one panel, of which `columns` columns are kept
template <int64_t kRows, class C>
NK_INLINE void multiply_block(const C* a, const C* panel, C* out, int64_t K, int64_t N, int64_t columns) {
  Few<C> sums[kRows][kWide] = {};
  for (int64_t k = 0; k < K; k++) {
    Few<C> row[kWide];
    for (int64_t w = 0; w < kWide; w++) row[w] = few(panel + k * kPanel + w * kFewLanes);
    for (int64_t r = 0; r < kRows; r++)
      for (int64_t w = 0; w < kWide; w++) sums[r][w] += row[w] * a[r * K + k];
  }
  for (int64_t r = 0; r < kRows; r++) {
    if (columns == kPanel) {
      for (int64_t w = 0; w < kWide; w++) put(sums[r][w], out + r * N + w * kFewLanes);
    } else {
      std::memcpy(out + r * N, sums[r], columns * sizeof(C));
    }
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
NK_CLONES void multiply(const C* a, const C* panels, C* out, int64_t M, int64_t K, int64_t N, int64_t begin,
                        int64_t end) {
  for (int64_t p = begin; p < end; p++) {
    const C* panel = panels + p * K * kPanel;
    C* const to = out + p * kPanel;
    const int64_t columns = std::min(kPanel, N - p * kPanel);
    int64_t m = 0;
#if defined(NK_AVX512)
    if (sizeof(C) == 4 && kAvx512)  // twice as many registers as the others have
      for (; m + 8 <= M; m += 8) multiply_block<8>(a + m * K, panel, to + m * N, K, N, columns);
#endif
    for (; m + 4 <= M; m += 4) multiply_block<4>(a + m * K, panel, to + m * N, K, N, columns);
    for (; m + 2 <= M; m += 2) multiply_block<2>(a + m * K, panel, to + m * N, K, N, columns);
    if (m < M) multiply_block<1>(a + m * K, panel, to + m * N, K, N, columns);
  }
}

#define NK_PRODUCT(C)                                                      \
  template void lay_out(const C*, int64_t, int64_t, int64_t, int64_t, C*); \
  template void multiply(const C*, const C*, C*, int64_t, int64_t, int64_t, int64_t, int64_t);
NK_PRODUCT(float)
NK_PRODUCT(double)

}  // namespace normkernels
#endif
