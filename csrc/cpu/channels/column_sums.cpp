// Loops that add up rows of channels, column by column.
#include "cpu/base/moments.h"
#include "cpu/channels/tiles.h"

namespace normkernels {

// Adds f(row, column) to the sums a and b of n columns, which stay in registers while the rows go by; ask(row, column,
// columns) asks for memory.
template <int64_t n, class C, class A, class F>
NK_INLINE void add_rows(int64_t rows, C* a, C* b, const A& ask, const F& f) {
  C p[n], q[n];
  for (int64_t i = 0; i < n; i++) p[i] = a[i], q[i] = b[i];
  for (int64_t r = 0; r < rows; r++) {
    ask(r, 0, n);
    for (int64_t i = 0; i < n; i++) {
      const Pair<C> v = f(r, i);
      p[i] += v.a;
      q[i] += v.b;
    }
  }
  for (int64_t i = 0; i < n; i++) a[i] = p[i], b[i] = q[i];
}

// The same for any n.
template <class C, class A, class F>
NK_INLINE void add_rows(int64_t rows, C* a, C* b, int64_t n, const A& ask, const F& f) {
  if (n == 2 * kBand) return add_rows<2 * kBand>(rows, a, b, ask, f);
  if (n == kBand) return add_rows<kBand>(rows, a, b, ask, f);
  for (int64_t r = 0; r < rows; r++) {
    for (int64_t j = 0; j < n; j += kBand) {
      const int64_t end = std::min(n, j + kBand);
      ask(r, j, end - j);
#pragma omp simd
      for (int64_t i = j; i < end; i++) {
        const Pair<C> v = f(r, i);
        a[i] += v.a;
        b[i] += v.b;
      }
    }
  }
}

template <class T>
NK_CLONES void add_columns_about(const T* x, int64_t stride, int64_t rows, int64_t ahead, const compute_t<T>* about,
                                 compute_t<T>* a, compute_t<T>* b, int64_t n) {
  using C = compute_t<T>;
  const auto add = [=](int64_t r, int64_t i) NK_INLINED {
    const C d = load(x[r * stride + i]) - about[i];
    return Pair<C>{d, d * d};
  };
  const auto ask = [=](int64_t r, int64_t i, int64_t n) NK_INLINED {
    if (ahead) prefetch_tile(x + ahead + r * stride + i, n);
  };
  add_rows(rows, a, b, n, ask, add);
}

template <class T>
NK_CLONES void wide_columns(const T* x, int64_t rows, double* mean, double* m2, int64_t n) {
  for (int64_t i = 0; i < n; i++) mean[i] = m2[i] = 0;
  for (int64_t r = 0; r < rows; r++)
    for (int64_t i = 0; i < n; i++) mean[i] += load(x[r * n + i]);
  for (int64_t i = 0; i < n; i++) mean[i] /= static_cast<double>(rows);
  for (int64_t r = 0; r < rows; r++) {
    for (int64_t i = 0; i < n; i++) {
      const double d = load(x[r * n + i]) - mean[i];
      m2[i] += d * d;
    }
  }
}

template <class C>
NK_CLONES bool recentre(int64_t rows, C* about, C* a, C* b, int64_t n) {
  const C share = C(1) / static_cast<C>(rows);
  int far = 0;
#pragma omp simd reduction(| : far)
  for (int64_t i = 0; i < n; i++) {
    const C off = a[i] * a[i] * share;
    far |= !(off <= kFar<C> * (b[i] - off));
  }
  if (!far) return false;
#pragma omp simd
  for (int64_t i = 0; i < n; i++) {
    about[i] += a[i] * share;
    a[i] = b[i] = 0;
  }
  return true;
}

template <class C>
NK_CLONES void merge_columns(int64_t count, int64_t rows, C* about, C* a, C* b, double* mean, double* m2, int64_t n) {
  const double share = 1.0 / rows, weight = static_cast<double>(rows) / (count + rows), cross = weight * count;
#pragma omp simd
  for (int64_t i = 0; i < n; i++) {
    const double left = a[i] * share, delta = about[i] + left - mean[i];
    mean[i] += delta * weight;
    m2[i] += b[i] - a[i] * left + delta * delta * cross;
    about[i] = static_cast<C>(mean[i]);
    a[i] = b[i] = 0;
  }
}

template <class T, class D>
NK_CLONES void add_gradient_columns(const D* du, int64_t d_stride, const T* x, int64_t stride, int64_t rows,
                                    int64_t ahead, const compute_t<T>* mean, compute_t<T>* a, compute_t<T>* b,
                                    int64_t n) {
  using C = compute_t<T>;
  const auto add = [=](int64_t r, int64_t i) NK_INLINED {
    const C d = load(du[r * d_stride + i]);
    return Pair<C>{d, d * (load(x[r * stride + i]) - mean[i])};
  };
  const auto ask = [=](int64_t r, int64_t i, int64_t n) NK_INLINED {
    if (!ahead) return;
    prefetch_tile(x + ahead + r * stride + i, n);
    prefetch_tile(du + ahead + r * d_stride + i, n);
  };
  add_rows(rows, a, b, n, ask, add);
}

#define NK_GRADIENTS(T, D)                                                                                        \
  template void add_gradient_columns(const D*, int64_t, const T*, int64_t, int64_t, int64_t, const compute_t<T>*, \
                                     compute_t<T>*, compute_t<T>*, int64_t);
#define NK_SUMS(T)                                                                                         \
  template void wide_columns(const T*, int64_t, double*, double*, int64_t);                                \
  template void add_columns_about(const T*, int64_t, int64_t, int64_t, const compute_t<T>*, compute_t<T>*, \
                                  compute_t<T>*, int64_t);                                                 \
  NK_GRADIENTS(T, compute_t<T>)
#define NK_COLUMNS(C)                                   \
  template bool recentre(int64_t, C*, C*, C*, int64_t); \
  template void merge_columns(int64_t, int64_t, C*, C*, C*, double*, double*, int64_t);
NK_SUMS(double)
NK_SUMS(float)
NK_SUMS(bfloat16)
NK_SUMS(float16)
NK_GRADIENTS(bfloat16, bfloat16)
NK_GRADIENTS(float16, float16)
NK_COLUMNS(double)
NK_COLUMNS(float)

}  // namespace normkernels
