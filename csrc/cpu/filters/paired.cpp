// Rows two vectors at a time.
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

template <class V>
struct ByTwos {
  template <class F, class... T>
  NK_INLINE static Pair<float> sums(int64_t n, const F& f, const T*... from) {
    Sum<V> a, b;
    each_twos<V>(n, [&](int64_t j, int64_t k) NK_INLINED {
      const Pair<Twos<V>> p = f(twos<V>(from + j)...);
      add(p.a, a, k);
      add(p.b, b, k);
    });
    return {a.total(), b.total()};
  }
};

// out = f(elements) of a row, and what lies so far behind them is asked for
template <class V, bool kStream, class T, class F, class... From>
NK_INLINE void map_twos(T* out, int64_t n, int64_t ahead, const F& f, const From*... from) {
  constexpr int64_t kStep = kWidth<Twos<V>>;
  for (int64_t j = 0; j < n; j += kStep) {
    for (int64_t line = j + ahead; ahead && line < j + ahead + kStep; line += 64 / sizeof(T))
      (__builtin_prefetch(from + line, 0, 2), ...);
    put<kStream>(f(twos<V>(from + j)...), out + j);
  }
}

template <class V, bool kStream, class T>
NK_INLINE void scale(const T* x, const Found<float>& f, T* y, int64_t rows, int64_t n) {
  for (int64_t r = 0; r < rows; r++, x += n, y += n) {
    const float mean = f.mean[r], a = f.a[r], c = f.c[r];
    map_twos<V, kStream>(y, n, ahead_of<T>(n), [=](const Twos<V>& v) NK_INLINED { return (v - mean) * a + c; }, x);
  }
}

template <class V, bool kStream, class T>
NK_INLINE void blend(const T* dy, const T* x, const Found<float>& f, T* dx, int64_t rows, int64_t n) {
  for (int64_t r = 0; r < rows; r++, dy += n, x += n, dx += n) {
    const float mean = f.mean[r], rstd = f.rstd[r], a = f.a[r], b = f.b[r], c = f.c[r];
    const auto value = [=](const Twos<V>& d, const Twos<V>& v)
                           NK_INLINED { return d * a + ((v - mean) * rstd * b + c); };
    map_twos<V, kStream>(dx, n, ahead_of<T>(n), value, dy, x);
  }
}

}  // namespace

template <class T>
void paired_moments(const T* x, bool centred, Found<float>& f, int64_t rows, int64_t n) {
  with_twos([&](auto bytes) NK_INLINED { find_moments<ByTwos<Vector<float, bytes()>>>(x, centred, f, rows, n); });
}
template <class T>
void paired_products(const T* dy, const T* x, bool centred, Found<float>& f, int64_t rows, int64_t n) {
  with_twos([&](auto bytes) NK_INLINED { find_products<ByTwos<Vector<float, bytes()>>>(dy, x, centred, f, rows, n); });
}
template <class T>
void paired_scale(const T* x, const Found<float>& f, T* y, int64_t rows, int64_t n, bool stream) {
  with_twos([&](auto bytes) NK_INLINED {
    stream ? scale<Vector<float, bytes()>, true>(x, f, y, rows, n)
           : scale<Vector<float, bytes()>, false>(x, f, y, rows, n);
  });
}
template <class T>
void paired_blend(const T* dy, const T* x, const Found<float>& f, T* dx, int64_t rows, int64_t n, bool stream) {
  with_twos([&](auto bytes) NK_INLINED {
    stream ? blend<Vector<float, bytes()>, true>(dy, x, f, dx, rows, n)
           : blend<Vector<float, bytes()>, false>(dy, x, f, dx, rows, n);
  });
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
