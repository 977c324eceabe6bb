// Filters that stay in registers while they are measured and written: the stores of one overlap the loads of the next.
#include "cpu/base/registers.h"

#include "cpu/filters/filters.h"

namespace normkernels {
#if defined(NK_TWOS)
namespace {

using V = Few<float>;

// kStream: whole lines past the caches
template <bool kStream, class T>
NK_INLINE void leave(const V& v, T* to) {
  if constexpr (kStream) {
    __builtin_ia32_movntps512(to, v);
  } else {
    keep(v, to);
  }
}

constexpr int64_t kAhead = 1024;  // elements: how far ahead memory is asked for, backward; forward it answers as fast

template <bool kCentred, bool kStream, int64_t kParts, class T>
NK_AVX512 void forward_of_parts(const FiltersForward<T, T>& a, int64_t begin, int64_t end,
                                const Parts<V, kParts>& row) {
  const float share = 1 / static_cast<float>(a.N), eps = static_cast<float>(a.eps);
  for (int64_t m = begin; m < end; m++) {
    const T* const x = a.x + m * a.N;
    V d[kParts], sum = {}, squares = {};
#pragma GCC unroll 8
    for (int64_t k = 0; k < kParts; k++) {
      d[k] = take<V>(x + row.column(k));
      sum = sum + row.counted(k, kCentred ? d[k] : d[k] * d[k]);
    }
    float found = total(sum), mean = 0, left = 0;
    if constexpr (kCentred) {
      mean = found * share;
      sum = V{};
#pragma GCC unroll 8
      for (int64_t k = 0; k < kParts; k++) {
        d[k] = d[k] - mean;
        sum = sum + row.counted(k, d[k]);
        squares = squares + row.counted(k, d[k] * d[k]);
      }
      const float rest = total(sum);
      left = rest * share;  // by rounding, in the mean
      found = total(squares) - rest * left;
    }
    if (!squares_fit<T>(found, a.N, a.eps)) {
      take_filters(a, m, 1);
      continue;
    }
    const float root = std::sqrt(kCentred ? found * share + eps : found);
    const float inverse = kCentred || root > 0 ? 1 / root : 0.f;  // a row of zeros has no direction
    if (kCentred) a.mean[m] = mean + left;
    if (a.statistic) a.statistic[m] = kCentred ? inverse : root;
    const float scale = a.gain ? a.gain[m] * inverse : inverse;
#pragma GCC unroll 8
    for (int64_t k = 0; k < kParts; k++) leave<kStream>((d[k] - left) * scale, a.y + m * a.N + row.column(k));
  }
  if (kStream) nontemporal_fence();
}

template <bool kCentred, bool kStream, int64_t kParts, class T>
NK_AVX512 void backward_of_parts(const FiltersBackward<T, T>& a, int64_t begin, int64_t end,
                                 const Parts<V, kParts>& row) {
  const float share = 1 / static_cast<float>(a.N);
  for (int64_t m = begin; m < end; m++) {
    const T *const x = a.x + m * a.N, *const dy = a.dy + m * a.N;
    const float statistic = a.statistic[m], mean = kCentred ? a.mean[m] : 0.f, shift = a.shift(m);
    const float inverse = kCentred ? statistic : statistic > 0 ? 1 / statistic : 0.f;
    const float scale = a.gain ? a.gain[m] * inverse : inverse;
    V d[kParts], h[kParts], of_d = {}, along_h = {};
#pragma GCC unroll 8
    for (int64_t k = 0; k < kParts; k++) {
      const int64_t j = row.column(k);
      d[k] = take<V>(dy + j);
      h[k] = (take<V>(x + j) - mean) * inverse;
      if constexpr (kCentred) {
        h[k] = h[k] + shift;
        of_d = of_d + row.counted(k, d[k]);
      }
      along_h = along_h + row.counted(k, d[k] * h[k]);
    }
    const float along = total(along_h), of_h = kCentred ? along * share : along, of_all = total(of_d) * share;
    if (a.dgain) a.dgain[m] = along;
#pragma GCC unroll 8
    for (int64_t k = 0; k < kParts; k++) {
      __builtin_prefetch(x + kAhead + row.column(k));
      __builtin_prefetch(dy + kAhead + row.column(k));
      V v = d[k] - h[k] * of_h;
      if constexpr (kCentred) v = v - of_all;
      leave<kStream>(v * scale, a.dx + m * a.N + row.column(k));
    }
  }
  if (kStream) nontemporal_fence();
}

// f(Parts of a filter, whether filters are centred, whether results go past the caches), the latter two as types
template <class T, class Sweep, class F>
void with_parts_of(const Sweep& a, const T* out, const F& f) {
  using Yes = std::true_type;
  using No = std::false_type;
  with_parts<V>(a.N, [&](const auto& row) {
    if constexpr (sizeof(T) == 4)
      if (a.nontemporal && on_line(out)) return a.mean ? f(row, Yes(), Yes()) : f(row, No(), Yes());
    a.mean ? f(row, Yes(), No()) : f(row, No(), No());
  });
}

}  // namespace

template <class T>
void register_filters(const FiltersForward<T, T>& a, int64_t begin, int64_t end) {
  with_parts_of(a, a.y, [&](const auto& row, auto centred, auto stream) {
    forward_of_parts<centred(), stream()>(a, begin, end, row);
  });
}
template <class T>
void register_filters(const FiltersBackward<T, T>& a, int64_t begin, int64_t end) {
  with_parts_of(a, a.dx, [&](const auto& row, auto centred, auto stream) {
    backward_of_parts<centred(), stream()>(a, begin, end, row);
  });
}
#else
template <class T>
void register_filters(const FiltersForward<T, T>&, int64_t, int64_t) {}
template <class T>
void register_filters(const FiltersBackward<T, T>&, int64_t, int64_t) {}
#endif

#define NK_FILTERS(T)                                                            \
  template void register_filters(const FiltersForward<T, T>&, int64_t, int64_t); \
  template void register_filters(const FiltersBackward<T, T>&, int64_t, int64_t);
NK_FILTERS(float)
NK_FILTERS(bfloat16)
NK_FILTERS(float16)

}  // namespace normkernels
