// Loops over rows of one tile, forward. Their last lanes overlap those before, so that no row has a rest.
#include "cpu/rows/stream_forward.h"

#if defined(NK_SHUFFLES)
namespace normkernels {
namespace {

constexpr int64_t kAhead = 1024;  // elements: how far ahead memory is asked for
constexpr Activation kNone = Activation::identity;

// The sums of v - about and of its square
template <class V, class T>
NK_INLINE Pair<compute_t<T>> sums_about(const T* x, compute_t<T> about, int64_t N, const Fresh<V>& last) {
  Pair<compute_t<T>> sums = {};
  for (int64_t first = 0; first < N; first += kSumPart) {
    const int64_t n = std::min(kSumPart, N - first);
    Sum<V> a, b;
    const auto add = [&](const V& d, int64_t k) NK_INLINED {
      a.part[k] += d;
      b.part[k] += d * d;
    };
    each_few<V>(n, [&](int64_t j, int64_t k) NK_INLINED { add(take<V>(x + first + j) - about, k); });
    if (n % kWidth<V>) add(last ? take<V>(x + N - kWidth<V>) - about : V{}, 3);
    sums.a += a.total();
    sums.b += b.total();
  }
  return sums;
}

// y of row m, through f; s: where x + residual goes; the row so many later is asked for; keep(a few of y,
// column)
template <class V, Activation f, class T, class K>
NK_INLINE void forward_row(const RowsForward<T>& a, int64_t m, T* s, int64_t ahead, const Fresh<V>& last,
                           const K& keep) {
  using C = compute_t<T>;
  const int64_t N = a.N, later = std::min(m + ahead, a.M - 1);
  const T *next = a.x + later * a.x_stride, *residual = a.residual ? a.residual + later * a.residual_stride : nullptr;
  if (residual) add_tiles(a.x + m * a.x_stride, a.residual + m * a.residual_stride, s, N);
  const T* x = residual ? s : a.x + m * a.x_stride;
  const C *w = a.affine.weight, *b = a.affine.bias;
  const auto sums = [&](C about) NK_INLINED { return sums_about<V>(x, about, N, last); };
  const KnownRow<C> known = a.finish(m, row_moments(a, x, add_up(take<V>(x)) / C(kWidth<V>), sums));
  const auto write = [&](int64_t j) NK_INLINED {
    __builtin_prefetch(next + j, 0, 2);
    if (residual) __builtin_prefetch(residual + j, 0, 2);
    keep(activated<f>(normalised<V>(x, known, w, b, j)), j);
  };
  for (int64_t j = 0; j + kWidth<V> <= N; j += kWidth<V>) write(j);
  if (N % kWidth<V>) write(N - kWidth<V>);
}

// Rows whose y together is at most a tile, so that one call of the activation serves them all.
template <class V, class T>
NK_INLINE void forward_activated(const RowsForward<T>& a, int64_t begin, int64_t end) {
  alignas(64) compute_t<T> u[kTile];
  alignas(64) T out[kTile];
  const auto last = fresh<V>(a.N);
  const int64_t ahead = std::max<int64_t>(1, kAhead / a.N);
  const int64_t rows = kTile / a.N;
  for (int64_t m = begin; m < end; m += rows) {
    const int64_t count = std::min(rows, end - m), n = count * a.N;
    for (int64_t r = m; r < m + count; r++) {
      auto* const to = u + (r - m) * a.N;
      forward_row<V, kNone>(a, r, a.sum(r), ahead, last, [to](const auto& v, int64_t j) NK_INLINED { put(v, to + j); });
    }
    if (a.gate) {
      for (int64_t r = 0; r < count; r++) a.complete(m + r, 0, u + r * a.N, a.N);
    } else {
      const Coming coming = Coming::of(a.x + std::min(m + rows, a.M - 1) * a.x_stride);
      activate(a.affine.activation, a.affine.slope, u, n, coming);
    }
    store_tile(u, a.nontemporal ? out : a.y + m * a.N, n);
    if (a.nontemporal) copy_nontemporal(out, a.y + m * a.N, n * sizeof(T));
  }
  if (a.nontemporal) nontemporal_fence();
}

#if defined(NK_TWOS)
template <class V, Activation f>
NK_INLINE void lines_forward(const RowsForward<float>& a, int64_t begin, int64_t end) {
  const auto last = fresh<V>(a.N);
  const int64_t ahead = std::max<int64_t>(1, kAhead / a.N);
  // What is added is needed in the first cache alone.
  alignas(64) float sums[2 * kTile];
  const bool kept = a.residual && a.N <= 2 * kTile && on_line(a.summed);
  for (int64_t m = begin; m < end; m++)
    forward_row<V, f>(a, m, kept ? sums : a.sum(m), ahead, last, [&](const auto& v, int64_t j) NK_INLINED {
      put_line<true>(v, a.y + m * a.N + j);
      if (kept) put_line<true>(take<V>(sums + j), a.summed + m * a.N + j);
    });
  nontemporal_fence();
}
#endif

template <class V, Activation f, class T>
NK_INLINE void cached_forward(const RowsForward<T>& a, int64_t begin, int64_t end) {
  const auto last = fresh<V>(a.N);
  const int64_t ahead = std::max<int64_t>(1, kAhead / a.N);
  const auto row = [&](int64_t m, T* to) NK_INLINED {
    forward_row<V, f>(a, m, a.sum(m), ahead, last, [to](const auto& v, int64_t j) NK_INLINED { put(v, to + j); });
  };
  if (!a.nontemporal) {
    for (int64_t m = begin; m < end; m++) row(m, a.y + m * a.N);
    return;
  }
  const Room<T> out(a.N);
  for (int64_t m = begin; m < end; m++) {
    row(m, out.get());
    copy_nontemporal(out.get(), a.y + m * a.N, a.N * sizeof(T));
  }
  nontemporal_fence();
}

// A function of its own for each activation, for in one there are too few registers.
template <Activation f, class T>
void forward_in_loop(const RowsForward<T>& a, int64_t begin, int64_t end) {
#if defined(NK_TWOS)
  if constexpr (std::is_same_v<T, float>) {
    if (whole_lines(a.nontemporal, a.N, a.y)) {
      if (streamed(a)) return stream_forward<f>(a, begin, end);
      return with_twos([&](auto bytes) NK_INLINED { lines_forward<Vector<float, bytes()>, f>(a, begin, end); });
    }
  }
#endif
  with_vectors([&](auto bytes) NK_INLINED { cached_forward<Vector<compute_t<T>, bytes()>, f>(a, begin, end); });
}

}  // namespace

template <class T>
void narrow_forward(const RowsForward<T>& a, int64_t begin, int64_t end) {
  if (a.in_loop()) return with_activation<T>(a.affine.activation, [&](auto f) { forward_in_loop<f()>(a, begin, end); });
  with_vectors([&](auto bytes) NK_INLINED { forward_activated<Vector<compute_t<T>, bytes()>>(a, begin, end); });
}

#define NK_NARROW(T) template void narrow_forward(const RowsForward<T>&, int64_t, int64_t);
NK_NARROW(double)
NK_NARROW(float)
NK_NARROW(bfloat16)
NK_NARROW(float16)

}  // namespace normkernels
#endif
