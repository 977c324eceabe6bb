// Loops over one unit of a strip of rows, written to vectorise along the rows.
#include "cpu/strided_rows/tiles.h"

namespace normkernels {
namespace {

// f(xhat), xhat(i) being that of row i: one loop with shift and one without
template <class T, class F>
NK_INLINE void with_xhat(const T* x, const Strip<compute_t<T>>& strip, const F& f) {
  const auto *mean = strip.mean, *rstd = strip.rstd, *shift = strip.shift;
  if (shift) {
    f([=](int64_t i) NK_INLINED { return (load(x[i]) - mean[i]) * rstd[i] + shift[i]; });
  } else {
    f([=](int64_t i) NK_INLINED { return (load(x[i]) - mean[i]) * rstd[i]; });
  }
}

}  // namespace

template <class T>
NK_CLONES void add_units(const T* x, compute_t<T>* a, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; i++) a[i] += load(x[i]);
}

template <class T>
NK_CLONES void centred_sums(const T* x, const compute_t<T>* mean, compute_t<T>* a, compute_t<T>* b, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; i++) {
    const compute_t<T> d = load(x[i]) - mean[i];
    a[i] += d;
    b[i] += d * d;
  }
}

template <class T, class Out>
NK_CLONES void affine_strip(const T* x, const Strip<compute_t<T>>& strip, compute_t<T> weight, compute_t<T> bias,
                            Out* u, int64_t n) {
  with_xhat(x, strip, [=](const auto& xhat) NK_INLINED {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) u[i] = store<Out>(xhat(i) * weight + bias);
  });
}

template <class T, class D>
NK_CLONES void gradient_strip(const D* du, const T* x, const Strip<compute_t<T>>& strip, compute_t<T> weight,
                              compute_t<T>& dweight, compute_t<T>& dbias, int64_t n) {
  auto *a = strip.a, *b = strip.b;
  with_xhat(x, strip, [=, &dweight, &dbias](const auto& xhat_of) NK_INLINED {
    compute_t<T> dw = 0, db = 0;
#pragma omp simd reduction(+ : dw, db)
    for (int64_t i = 0; i < n; i++) {
      const compute_t<T> d = load(du[i]), xhat = xhat_of(i);
      dw += d * xhat;
      db += d;
      a[i] += d * weight;
      b[i] += d * weight * xhat;
    }
    dweight += dw;
    dbias += db;
  });
}

template <class T, class D>
NK_CLONES void input_gradient_strip(const D* du, const T* x, const T* dsummed, const Strip<compute_t<T>>& strip,
                                    compute_t<T> weight, T* out, int64_t n) {
  const auto *rstd = strip.rstd, *a = strip.a, *b = strip.b;
  with_xhat(x, strip, [=](const auto& xhat) NK_INLINED {
    const auto gradient = [=](int64_t i)
                              NK_INLINED { return rstd[i] * (load(du[i]) * weight - a[i] - xhat(i) * b[i]); };
    if (dsummed) {
#pragma omp simd
      for (int64_t i = 0; i < n; i++) out[i] = store<T>(gradient(i) + load(dsummed[i]));
    } else {
#pragma omp simd
      for (int64_t i = 0; i < n; i++) out[i] = store<T>(gradient(i));
    }
  });
}

#define NK_GRADIENTS(T, D)                                                                                       \
  template void affine_strip(const T*, const Strip<compute_t<T>>&, compute_t<T>, compute_t<T>, D*, int64_t);     \
  template void gradient_strip(const D*, const T*, const Strip<compute_t<T>>&, compute_t<T>, compute_t<T>&,      \
                               compute_t<T>&, int64_t);                                                          \
  template void input_gradient_strip(const D*, const T*, const T*, const Strip<compute_t<T>>&, compute_t<T>, T*, \
                                     int64_t);
#define NK_STRIPS(T)                                                                                \
  template void add_units(const T*, compute_t<T>*, int64_t);                                        \
  template void centred_sums(const T*, const compute_t<T>*, compute_t<T>*, compute_t<T>*, int64_t); \
  NK_GRADIENTS(T, compute_t<T>)
NK_STRIPS(double)
NK_STRIPS(float)
NK_STRIPS(bfloat16)
NK_STRIPS(float16)
NK_GRADIENTS(bfloat16, bfloat16)
NK_GRADIENTS(float16, float16)

}  // namespace normkernels
