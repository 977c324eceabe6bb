// Rows 32 elements at a time.
#include "cpu/base/tiles.h"
#include "cpu/base/twos.h"
#include "cpu/filters/sums.h"

namespace normkernels {
#if defined(NK_TWOS)
namespace {

// How far ahead memory is asked for, in elements; of short rows of float the processor has asked by itself.
template <class T>
int64_t ahead_of(int64_t n) {
  return sizeof(T) == 2 ? 1 << 14 : n > 512 ? n : 0;
}

struct ByTwos {
  template <class F, class... T>
  NK_INLINE static Pair<float> sums(int64_t n, const F& f, const T*... from) {
    Sum<Few<float>> a, b;
    each_twos(n, [&](int64_t j, int64_t k) NK_INLINED {
      const Pair<Twos<>> p = f(twos(from + j)...);
      add(p.a, a, k);
      add(p.b, b, k);
    });
    return {a.total(), b.total()};
  }
};

// out = f(elements) of a row, and what lies so far behind them is asked for
template <bool kStream, class T, class F, class... From>
NK_INLINE void map_twos(T* out, int64_t n, int64_t ahead, const F& f, const From*... from) {
  for (int64_t j = 0; j < n; j += kPaired) {
    for (int64_t line = j + ahead; ahead && line < j + ahead + kPaired; line += 64 / sizeof(T))
      (__builtin_prefetch(from + line, 0, 2), ...);
    put<kStream>(f(twos(from + j)...), out + j);
  }
}

template <class T>
NK_AVX512 void moments(const T* x, bool centred, Found<float>& f, int64_t rows, int64_t n) {
  find_moments<ByTwos>(x, centred, f, rows, n);
}
template <class T>
NK_AVX512 void products(const T* dy, const T* x, bool centred, Found<float>& f, int64_t rows, int64_t n) {
  find_products<ByTwos>(dy, x, centred, f, rows, n);
}

template <bool kStream, class T>
NK_AVX512 void scale(const T* x, const Found<float>& f, T* y, int64_t rows, int64_t n) {
  for (int64_t r = 0; r < rows; r++, x += n, y += n) {
    const float mean = f.mean[r], a = f.a[r], c = f.c[r];
    map_twos<kStream>(y, n, ahead_of<T>(n), [=](const Twos<>& v) NK_INLINED { return (v - mean) * a + c; }, x);
  }
}

template <bool kStream, class T>
NK_AVX512 void blend(const T* dy, const T* x, const Found<float>& f, T* dx, int64_t rows, int64_t n) {
  for (int64_t r = 0; r < rows; r++, dy += n, x += n, dx += n) {
    const float mean = f.mean[r], rstd = f.rstd[r], a = f.a[r], b = f.b[r], c = f.c[r];
    const auto value = [=](const Twos<>& d, const Twos<>& v) NK_INLINED { return d * a + ((v - mean) * rstd * b + c); };
    map_twos<kStream>(dx, n, ahead_of<T>(n), value, dy, x);
  }
}

}  // namespace

template <class T>
void paired_moments(const T* x, bool centred, Found<float>& f, int64_t rows, int64_t n) {
  moments(x, centred, f, rows, n);
}
template <class T>
void paired_products(const T* dy, const T* x, bool centred, Found<float>& f, int64_t rows, int64_t n) {
  products(dy, x, centred, f, rows, n);
}
template <class T>
void paired_scale(const T* x, const Found<float>& f, T* y, int64_t rows, int64_t n, bool stream) {
  stream ? scale<true>(x, f, y, rows, n) : scale<false>(x, f, y, rows, n);
}
template <class T>
void paired_blend(const T* dy, const T* x, const Found<float>& f, T* dx, int64_t rows, int64_t n, bool stream) {
  stream ? blend<true>(dy, x, f, dx, rows, n) : blend<false>(dy, x, f, dx, rows, n);
}
#else
template <class T>
void paired_moments(const T*, bool, Found<float>&, int64_t, int64_t) {}
template <class T>
void paired_products(const T*, const T*, bool, Found<float>&, int64_t, int64_t) {}
template <class T>
void paired_scale(const T*, const Found<float>&, T*, int64_t, int64_t, bool) {}
template <class T>
void paired_blend(const T*, const T*, const Found<float>&, T*, int64_t, int64_t, bool) {}
#endif

#define NK_PAIRED(T)                                                                        \
  template void paired_moments(const T*, bool, Found<float>&, int64_t, int64_t);            \
  template void paired_products(const T*, const T*, bool, Found<float>&, int64_t, int64_t); \
  template void paired_scale(const T*, const Found<float>&, T*, int64_t, int64_t, bool);    \
  template void paired_blend(const T*, const T*, const Found<float>&, T*, int64_t, int64_t, bool);
NK_PAIRED(float)
NK_PAIRED(bfloat16)
NK_PAIRED(float16)

}  // namespace normkernels
