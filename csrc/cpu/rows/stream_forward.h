// Rows past the caches, forward: while a group of rows is written, the next one is read.
//
// A row is read for its moments and once more for its result. One after the other, memory waits while moments are
// found; so both are one loop, of different rows. The rows of a group are taken side by side, a page of each at a time,
// so that a page of weight and bias serves all of them from the first cache.
#pragma once

#include "cpu/rows/one_read.h"
#include "cpu/rows/paired.h"

#if defined(NK_TWOS)
namespace normkernels {

constexpr int64_t kStreamRows = 4;         // of a group, at most
constexpr int64_t kStreamBytes = 1 << 18;  // of a group, which stays in the second cache until it is written

// Whether rows that go past the caches gain by it, as measured: short ones, after each of which memory waits, and those
// whose weight and bias leave the first cache from row to row; weight alone does not take enough of it.
template <class T>
bool streamed(const RowsForward<T>& a) {
  if (!kAvx512 || a.residual || !a.in_loop()) return false;
  if (sizeof(T) == 4 && a.N >= 256 && a.N <= 1024) return true;
  return a.affine.bias && a.N >= (sizeof(T) == 2 ? 1024 : 4096);
}

// A cache line of T: in registers, each of n columns', and one of y
template <class T>
using Line = std::conditional_t<sizeof(T) == 2, Twos<>, Few<float>>;
template <class T, class F>
NK_INLINE void each_line(int64_t n, const F& f) {
  if constexpr (sizeof(T) == 2) {
    each_twos(n, f);
  } else {
    each_few<Few<float>>(n, f);
  }
}
template <Activation f, class T>
NK_INLINE void write_line(const T* x, const KnownRow<float>& row, const float* w, const float* b, int64_t j, T* y) {
  if constexpr (sizeof(T) == 2) {
    put<true>(activated<f>(normalised_twos<Few<float>>(x, row, w, b, j)), y + j);
  } else {
    put_line<true>(activated<f>(normalised<Line<T>>(x, row, w, b, j)), y + j);
  }
}

// The sums of v - about and of its square, of a row that comes a page at a time: in the order of rows read at once
template <class T>
struct RowSums {
  static constexpr int64_t kPage = 4096 / sizeof(T), kPart = sizeof(T) == 2 ? kPairedRow : kSumPart;
  float about;
  Sum<Few<float>> of_d, of_squares;
  Pair<float> total;

  NK_INLINE void begin(float near) {
    about = near;
    of_d = of_squares = {};
    total = {};
  }
  // meanwhile(column, of each line)
  template <class F>
  NK_INLINE void add_page(const T* x, int64_t first, int64_t N, const F& meanwhile) {
    const int64_t n = std::min(kPage, N - first);
    const float near = about;
    Sum<Few<float>> a = of_d, b = of_squares;
    each_line<T>(n, [&](int64_t i, int64_t k) NK_INLINED {
      meanwhile(first + i);
      const auto d = take<Line<T>>(x + first + i) - near;
      add(d, a, k);
      add(d * d, b, k);
    });
    of_d = a;
    of_squares = b;
    if ((first + n) % kPart && first + n < N) return;
    total = {total.a + a.total(), total.b + b.total()};
    of_d = of_squares = {};
  }
  [[gnu::noinline]] NK_AVX512 static Pair<float> again(const T* x, float about, int64_t N) {
    RowSums sums;
    sums.begin(about);
    for (int64_t j = 0; j < N; j += kPage) sums.add_page(x, j, N, [](int64_t) NK_INLINED {});
    return sums.total;
  }
};

template <Activation f, class T>
class StreamForward {
 public:
  NK_INLINE StreamForward(const RowsForward<T>& a, int64_t end)
      : a_(a),
        end_(end),
        rows_(a.N <= kPage ? 1 : std::clamp<int64_t>(kStreamBytes / (a.N * sizeof(T)), 1, kStreamRows)) {}

  NK_INLINE void run(int64_t begin) {
    pass(begin, end_);
    for (int64_t m = begin; m < end_; m += rows_) {
      for (int64_t r = 0; r < std::min(rows_, end_ - m); r++) finish(m + r, r);
      pass(m + rows_, m);
    }
    nontemporal_fence();
  }

 private:
  static constexpr int64_t kPage = RowSums<T>::kPage;
  const RowsForward<T> a_;
  const int64_t end_, rows_;
  RowSums<T> sums_[kStreamRows];
  KnownRow<float> known_[kStreamRows];

  NK_INLINE const T* x(int64_t m) const { return a_.x + std::min(m, end_ - 1) * a_.x_stride; }
  NK_INLINE static float near(const T* x) {
    if constexpr (sizeof(T) == 2) return add_up(twos(x).even) / kFewLanes;
    return add_up(take<Few<float>>(x)) / kFewLanes;
  }

  NK_INLINE void finish(int64_t m, int64_t r) {
    const auto sums = [&](float about) NK_INLINED {
      return about == sums_[r].about ? sums_[r].total : RowSums<T>::again(x(m), about, a_.N);
    };
    known_[r] = a_.finish(m, row_moments(a_, x(m), near(x(m)), sums));
  }

  // Reads a group of rows and writes another, of which either may be past the end.
  NK_INLINE void pass(int64_t reading, int64_t writing) {
    for (int64_t r = 0; r < rows_; r++) sums_[r].begin(a_.mean ? near(x(reading + r)) : 0);
    for (int64_t j = 0; j < a_.N; j += kPage)
      for (int64_t r = 0; r < rows_; r++) {
        const bool read = reading + r < end_, write = writing + r < end_;
        if (read && write) read_page(reading + r, r, j, writer(writing + r, r));
        if (read && !write) read_page(reading + r, r, j, [](int64_t) NK_INLINED {});
        if (!read && write) write_page(j, writer(writing + r, r));
      }
  }
  NK_INLINE auto writer(int64_t m, int64_t r) const {
    const T* const own = x(m);
    const float *const w = a_.affine.weight, *const b = a_.affine.bias;
    return [=, y = a_.y + m * a_.N, known = known_[r]](int64_t j) NK_INLINED { write_line<f>(own, known, w, b, j, y); };
  }
  template <class F>
  NK_INLINE void read_page(int64_t m, int64_t r, int64_t first, const F& write) {
    // The page that will be read when the others of this group have been
    const T* const later = first + kPage < a_.N ? x(m) + kPage : x(m + std::max(rows_, 4 * kPage / a_.N)) - first;
    sums_[r].add_page(x(m), first, a_.N, [&](int64_t j) NK_INLINED {
      __builtin_prefetch(later + j, 0, 2);
      write(j);
    });
  }
  template <class F>
  NK_INLINE void write_page(int64_t first, const F& write) const {
    each_line<T>(std::min(kPage, a_.N - first), [&](int64_t i, int64_t) NK_INLINED { write(first + i); });
  }
};

template <Activation f, class T>
NK_AVX512 void stream_forward(const RowsForward<T>& a, int64_t begin, int64_t end) {
  StreamForward<f, T>(a, end).run(begin);
}

}  // namespace normkernels
#endif
