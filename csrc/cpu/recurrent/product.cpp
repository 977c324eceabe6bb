// The product of a few rows with a matrix: a panel of its columns is read once, with the sums in registers.
#include "cpu/recurrent/product.h"

#include "cpu/base/few.h"

#if defined(NK_SHUFFLES)
namespace normkernels {
namespace {

// kWide vectors of kRows rows, from column j on
template <int64_t kRows, int64_t kWide, class C>
NK_INLINE void multiply_block(const C* a, const C* b, C* out, int64_t K, int64_t N, int64_t j) {
  Few<C> sums[kRows][kWide] = {};
  for (int64_t k = 0; k < K; k++) {
    Few<C> row[kWide];
    for (int64_t w = 0; w < kWide; w++) row[w] = few(b + k * N + j + w * kFewLanes);
    for (int64_t r = 0; r < kRows; r++)
      for (int64_t w = 0; w < kWide; w++) sums[r][w] += row[w] * a[r * K + k];
  }
  for (int64_t r = 0; r < kRows; r++)
    for (int64_t w = 0; w < kWide; w++) put(sums[r][w], out + r * N + j + w * kFewLanes);
}

template <int64_t kRows, int64_t kWide, class C>
NK_INLINE void multiply_rows(const C* a, const C* b, C* out, int64_t K, int64_t N, int64_t begin, int64_t end) {
  int64_t j = begin;
  for (; j + kWide * kFewLanes <= end; j += kWide * kFewLanes) multiply_block<kRows, kWide>(a, b, out, K, N, j);
  for (; j + kFewLanes <= end; j += kFewLanes) multiply_block<kRows, 1>(a, b, out, K, N, j);
  if (j < end) multiply_block<kRows, 1>(a, b, out, K, N, end - kFewLanes);
}

}  // namespace

template <class C>
NK_CLONES void multiply_few_rows(const C* a, const C* b, C* out, int64_t M, int64_t K, int64_t N, int64_t begin,
                                 int64_t end) {
  int64_t m = 0;
  for (; m + 4 <= M; m += 4) multiply_rows<4, 2>(a + m * K, b, out + m * N, K, N, begin, end);
  for (; m + 2 <= M; m += 2) multiply_rows<2, 4>(a + m * K, b, out + m * N, K, N, begin, end);
  if (m < M) multiply_rows<1, 4>(a + m * K, b, out + m * N, K, N, begin, end);
}

template void multiply_few_rows(const float*, const float*, float*, int64_t, int64_t, int64_t, int64_t, int64_t);
template void multiply_few_rows(const double*, const double*, double*, int64_t, int64_t, int64_t, int64_t, int64_t);

}  // namespace normkernels
#endif
