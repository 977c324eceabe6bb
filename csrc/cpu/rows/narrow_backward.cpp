// Loops over rows of one tile or two, backward. Their last lanes overlap those before, so that no row has a rest.
#include "cpu/base/few.h"
#include "cpu/rows/backward.h"
#include "cpu/rows/registers.h"

#if defined(NK_SHUFFLES)
namespace normkernels {
namespace {

constexpr int64_t kTogether = 4;                // rows whose sums for the parameters are read and written once: at most
constexpr int64_t kAhead = 8192;                // elements: how far ahead the second cache is asked for what comes
constexpr int64_t kBuffer = kTogether * kTile;  // what they are together at most

// du: the gradient of what the activation is given, kRows rows of it; keep(r, j, a few of row r's dx from column j on).
// kAlone: as rows from memory are, the next of which are asked for.
template <class V, int64_t kRows, bool kAlone, class T, class D, class K>
NK_INLINE void backward_rows(const RowsBackward<T>& a, int64_t m, int64_t block, const Fresh<V>& last,
                             const KnownRow<compute_t<T>>* known, const D* du_rows, int64_t du_stride, const K& keep) {
  using C = compute_t<T>;
  const int64_t N = a.N;
  const C* w = a.affine.weight;
  C *dw = a.dweight ? a.dweight + block * N : nullptr, *db = a.dbias ? a.dbias + block * N : nullptr;
  Pair<C> means[kRows];
  const auto at = [&](int64_t r, int64_t j) NK_INLINED { return take<V>(a.x + (m + r) * a.x_stride + j); };
  const auto xhat = [&](int64_t r, int64_t j)
                        NK_INLINED { return (at(r, j) - known[r].mean) * known[r].rstd + known[r].shift; };
  const auto du = [&](int64_t r, int64_t j) NK_INLINED { return take<V>(du_rows + r * du_stride + j); };
  const auto new_ones = [&](const V& v) NK_INLINED { return last ? v : V{}; };
  for (int64_t r = 0; r < kRows; r++) {
    Pair<C> sums = {};
    const auto add_part = [&](int64_t first, int64_t columns) NK_INLINED {
      Sum<V> of_g, of_g_xhat;
      const auto add = [&](int64_t j, int64_t k, auto count) NK_INLINED {
        auto g = du(r, j);
        if (w) g *= take<V>(w + j);
        of_g.part[k] += count(g);
        of_g_xhat.part[k] += count(g * xhat(r, j));
      };
      each_few<V>(columns,
                  [&](int64_t j, int64_t k) NK_INLINED { add(first + j, k, [](auto v) NK_INLINED { return v; }); });
      if (columns % kWidth<V>) add(N - kWidth<V>, 3, new_ones);
      sums.a += of_g.total();
      sums.b += of_g_xhat.total();
    };
    for (int64_t j = 0; kAlone && j < N; j += kSumPart) add_part(j, std::min(kSumPart, N - j));
    if (!kAlone) add_part(0, N);
    const C n = static_cast<C>(N);
    means[r] = {a.mean ? sums.a / n : C(0), sums.b / n};
  }
  const int64_t alone = N > kTile ? 1 : std::max<int64_t>(2, kTile / N);
  const int64_t rows = kAlone ? alone : std::max(kRows, kAhead / N);
  const bool asked = !a.plain() && !a.gate;  // by the activation
  const int64_t ahead = asked ? m : std::min(m + rows, a.M - kRows);
  const auto write = [&](int64_t j, auto count) NK_INLINED {
    V to_w = {}, to_b = {};
    if (dw) to_w = take<V>(dw + j);
    if (db) to_b = take<V>(db + j);
    for (int64_t r = 0; r < kRows; r++) {
      __builtin_prefetch(a.x + (ahead + r) * a.x_stride + j, 0, 2);
      __builtin_prefetch(a.dy + (ahead + r) * a.dy_stride + j, 0, 2);
      if (a.dsummed) __builtin_prefetch(a.dsummed + (ahead + r) * a.dsummed_stride + j, 0, 2);
      const auto d = du(r, j), h = xhat(r, j);
      to_w += count(d * h);
      to_b += count(d);
      auto g = w ? d * take<V>(w + j) : d;
      g = known[r].rstd * (g - means[r].a - h * means[r].b);
      if (a.dsummed) g += take<V>(a.dsummed + (m + r) * a.dsummed_stride + j);
      keep(r, j, g);
    }
    if (dw) put(to_w, dw + j);
    if (db) put(to_b, db + j);
  };
  for (int64_t j = 0; j + kWidth<V> <= N; j += kWidth<V>) write(j, [](auto v) NK_INLINED { return v; });
  if (N % kWidth<V>) write(N - kWidth<V>, new_ones);
}

// du of kRows rows: dy times the derivative of the activation, or through the gate
template <class V, int64_t kRows, class T>
NK_INLINE void activation_backward(const RowsBackward<T>& a, int64_t m, const KnownRow<compute_t<T>>* known,
                                   compute_t<T>* du) {
  using C = compute_t<T>;
  alignas(64) C u[kRows == 1 ? 2 * kTile : kBuffer];
  const C *w = a.affine.weight, *b = a.affine.bias;
  for (int64_t r = 0; r < kRows; r++) {
    const T *x = a.x + (m + r) * a.x_stride, *dy = a.dy + (m + r) * a.dy_stride;
    const KnownRow<C> row = known[r];
    map_few<V>(u + r * a.N, a.N, [&](int64_t j) NK_INLINED { return normalised<V>(x, row, w, b, j); });
    map_few<V>(du + r * a.N, a.N, [&](int64_t j) NK_INLINED { return take<V>(dy + j); });
  }
  if (!a.gate) {
    const int64_t later = std::min(m + kRows, a.M - kRows);
    const T* const dsummed = a.dsummed ? a.dsummed + later * a.dsummed_stride : nullptr;
    const Coming coming = Coming::of(a.x + later * a.x_stride, a.dy + later * a.dy_stride, dsummed);
    return times_derivative(a.affine.activation, a.affine.slope, u, du, kRows * a.N, coming);
  }
  for (int64_t r = 0; r < kRows; r++) a.through(m + r, 0, u + r * a.N, du + r * a.N, a.N);
}

template <class V, int64_t kRows, bool kAlone, class T, class K>
NK_INLINE void backward_together(const RowsBackward<T>& a, int64_t m, int64_t block, const Fresh<V>& last,
                                 compute_t<T>* du, const K& keep) {
  KnownRow<compute_t<T>> known[kRows];
  for (int64_t r = 0; r < kRows; r++) known[r] = a.row(m + r);
  if (a.plain())
    return backward_rows<V, kRows, kAlone>(a, m, block, last, known, a.dy + m * a.dy_stride, a.dy_stride, keep);
  activation_backward<V, kRows>(a, m, known, du);
  backward_rows<V, kRows, kAlone>(a, m, block, last, known, du, a.N, keep);
}

#if defined(NK_TWOS)
template <class V>
NK_INLINE void stream_backward(const RowsBackward<float>& a, int64_t block, int64_t begin, int64_t end) {
  alignas(64) float du[2 * kTile];
  const auto last = fresh<V>(a.N);
  for (int64_t m = begin; m < end; m++) {
    const auto keep = [&](int64_t, int64_t j, const auto& g) NK_INLINED { put_line<true>(g, a.dx + m * a.N + j); };
    backward_together<V, 1, true>(a, m, block, last, du, keep);
  }
  nontemporal_fence();
}
#endif

// Past the caches through a buffer, where rows begin anywhere in a line
template <class V, class T>
NK_INLINE void buffered_backward(const RowsBackward<T>& a, int64_t block, int64_t begin, int64_t end) {
  const int64_t stride = std::max(kTile, a.N);
  const Room<T> room(2 * stride);
  T* const out = room.get();
  alignas(64) compute_t<T> du[2 * kTile];
  const auto last = fresh<V>(a.N);
  int64_t m = begin;
  const auto some = [&](auto rows, auto alone) NK_INLINED {
    for (; m + rows() <= end; m += rows()) {
      backward_together<V, rows(), alone()>(
          a, m, block, last, du, [&](int64_t r, int64_t j, const V& g) NK_INLINED { put(g, out + r * stride + j); });
      for (int64_t r = 0; r < rows(); r++) copy_nontemporal(out + r * stride, a.dx + (m + r) * a.N, a.N * sizeof(T));
    }
  };
  using One = std::integral_constant<int64_t, 1>;
  if (a.N <= kTile && a.plain()) some(std::integral_constant<int64_t, 2>(), std::false_type());
  a.N > kSumPart ? some(One(), std::true_type()) : some(One(), std::false_type());
  nontemporal_fence();
}

template <class V, class T>
NK_INLINE void cached_backward(const RowsBackward<T>& a, int64_t block, int64_t begin, int64_t end) {
  alignas(64) compute_t<T> du[kBuffer];
  const auto last = fresh<V>(a.N);
  int64_t m = begin;
  const auto some = [&](auto rows, auto alone, int64_t most) NK_INLINED {
    for (; a.N <= most && m + rows() <= end; m += rows()) {
      T* const dx = a.dx + m * a.N;
      const int64_t N = a.N;
      prefetch_results(dx, rows() * N, a.M * N);
      backward_together<V, rows(), alone()>(
          a, m, block, last, du, [=](int64_t r, int64_t j, const V& g) NK_INLINED { put(g, dx + r * N + j); });
    }
  };
  using One = std::integral_constant<int64_t, 1>;
  if (a.apart() || a.N > kSumPart) return some(One(), std::true_type(), kLongRow);
  some(std::integral_constant<int64_t, kTogether>(), std::false_type(), kTile);
  some(std::integral_constant<int64_t, 2>(), std::false_type(), a.plain() ? 2 * kTile : kTile);
  some(One(), std::false_type(), 2 * kTile);
}

}  // namespace

template <class T>
void narrow_backward(const RowsBackward<T>& a, int64_t block, int64_t begin, int64_t end) {
#if defined(NK_TWOS)
  if constexpr (sizeof(T) <= 4)
    if (a.plain() && in_registers(a.N)) return register_backward<Few<float>>(a, block, begin, end);
#endif
#if defined(NK_TWOS)
  if constexpr (std::is_same_v<T, float>)
    if (whole_lines(a.nontemporal, a.N, a.dx))
      return with_twos([&](auto bytes) NK_INLINED { stream_backward<Vector<float, bytes()>>(a, block, begin, end); });
#endif
  if (a.nontemporal) {
    with_vectors([&](auto bytes)
                     NK_INLINED { buffered_backward<Vector<compute_t<T>, bytes()>>(a, block, begin, end); });
  } else {
    with_vectors([&](auto bytes) NK_INLINED { cached_backward<Vector<compute_t<T>, bytes()>>(a, block, begin, end); });
  }
}

#define NK_NARROW(T) template void narrow_backward(const RowsBackward<T>&, int64_t, int64_t, int64_t);
NK_NARROW(double)
NK_NARROW(float)
NK_NARROW(bfloat16)
NK_NARROW(float16)

}  // namespace normkernels
#endif
