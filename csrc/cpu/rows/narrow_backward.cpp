// Loops over rows of one tile or two, backward. Their last lanes overlap those before, so that no row has a rest.
#include "cpu/base/few.h"
#include "cpu/rows/backward.h"

#if defined(NK_SHUFFLES)
namespace normkernels {
namespace {

constexpr int64_t kTogether = 4;                // rows whose sums for the parameters are read and written once: at most
constexpr int64_t kAhead = 8192;                // elements: how far ahead memory is asked for
constexpr int64_t kBuffer = kTogether * kTile;  // what they are together at most

// du: the gradient of what the activation is given, kRows rows of it; keep(r, j, a few of row r's dx from column j on)
template <int64_t kRows, class T, class D, class K>
NK_INLINE void backward_rows(const RowsBackward<T>& a, int64_t m, int64_t block, const Fresh<compute_t<T>>& last,
                             const KnownRow<compute_t<T>>* known, const D* du_rows, int64_t du_stride, const K& keep) {
  using C = compute_t<T>;
  const int64_t N = a.N;
  const C* w = a.affine.weight;
  C *dw = a.dweight ? a.dweight + block * N : nullptr, *db = a.dbias ? a.dbias + block * N : nullptr;
  Pair<C> means[kRows];
  const auto at = [&](int64_t r, int64_t j) NK_INLINED { return few(a.x + (m + r) * a.x_stride + j); };
  const auto xhat = [&](int64_t r, int64_t j)
                        NK_INLINED { return (at(r, j) - known[r].mean) * known[r].rstd + known[r].shift; };
  const auto du = [&](int64_t r, int64_t j) NK_INLINED { return few(du_rows + r * du_stride + j); };
  const auto new_ones = [&](const Few<C>& v) NK_INLINED { return last ? v : Few<C>{}; };
  for (int64_t r = 0; r < kRows; r++) {
    Sum<C> of_g, of_g_xhat;
    const auto add = [&](int64_t j, int64_t k, auto count) NK_INLINED {
      auto g = du(r, j);
      if (w) g *= few(w + j);
      of_g.part[k] += count(g);
      of_g_xhat.part[k] += count(g * xhat(r, j));
    };
    each_few(N, [&](int64_t j, int64_t k) NK_INLINED { add(j, k, [](auto v) NK_INLINED { return v; }); });
    if (N % kFewLanes) add(N - kFewLanes, 3, new_ones);
    const C n = static_cast<C>(N);
    means[r] = {a.mean ? of_g.total() / n : C(0), of_g_xhat.total() / n};
  }
  const int64_t ahead = std::min(m + std::max(kRows, kAhead / N), a.M - kRows);
  const auto write = [&](int64_t j, auto count) NK_INLINED {
    Few<C> to_w = {}, to_b = {};
    if (dw) to_w = few(dw + j);
    if (db) to_b = few(db + j);
    for (int64_t r = 0; r < kRows; r++) {
      __builtin_prefetch(a.x + (ahead + r) * a.x_stride + j, 0, 2);
      __builtin_prefetch(a.dy + (ahead + r) * a.dy_stride + j, 0, 2);
      const auto d = du(r, j), h = xhat(r, j);
      to_w += count(d * h);
      to_b += count(d);
      auto g = w ? d * few(w + j) : d;
      g = known[r].rstd * (g - means[r].a - h * means[r].b);
      if (a.dsummed) g += few(a.dsummed + (m + r) * a.dsummed_stride + j);
      keep(r, j, g);
    }
    if (dw) put(to_w, dw + j);
    if (db) put(to_b, db + j);
  };
  for (int64_t j = 0; j + kFewLanes <= N; j += kFewLanes) write(j, [](auto v) NK_INLINED { return v; });
  if (N % kFewLanes) write(N - kFewLanes, new_ones);
}

// du of kRows rows: dy times the derivative of the activation, or through the gate
template <int64_t kRows, class T>
NK_INLINE void activation_backward(const RowsBackward<T>& a, int64_t m, const KnownRow<compute_t<T>>* known,
                                   compute_t<T>* du) {
  using C = compute_t<T>;
  alignas(64) C u[kRows == 1 ? 2 * kTile : kBuffer];
  const C *w = a.affine.weight, *b = a.affine.bias;
  for (int64_t r = 0; r < kRows; r++) {
    const T *x = a.x + (m + r) * a.x_stride, *dy = a.dy + (m + r) * a.dy_stride;
    const KnownRow<C> row = known[r];
    map_few(u + r * a.N, a.N, [&](int64_t j) NK_INLINED { return normalised(x, row, w, b, j); });
    map_few(du + r * a.N, a.N, [&](int64_t j) NK_INLINED { return few(dy + j); });
  }
  if (!a.gate) return a.through(m, 0, u, du, kRows * a.N);
  for (int64_t r = 0; r < kRows; r++) a.through(m + r, 0, u + r * a.N, du + r * a.N, a.N);
}

template <int64_t kRows, class T, class K>
NK_INLINE void backward_together(const RowsBackward<T>& a, int64_t m, int64_t block, const Fresh<compute_t<T>>& last,
                                 compute_t<T>* du, const K& keep) {
  KnownRow<compute_t<T>> known[kRows];
  for (int64_t r = 0; r < kRows; r++) known[r] = a.row(m + r);
  if (a.plain()) return backward_rows<kRows>(a, m, block, last, known, a.dy + m * a.dy_stride, a.dy_stride, keep);
  activation_backward<kRows>(a, m, known, du);
  backward_rows<kRows>(a, m, block, last, known, du, a.N, keep);
}

// f(rows, first row) for all rows of a block, so many at a time at most. Of rows that are a page long each line wants
// the same set of the first-level cache: past the caches only two of them are taken together, one beside its u and du.
template <int64_t kMost, class T, class F>
NK_INLINE void each_together(const RowsBackward<T>& a, int64_t block, const F& f) {
  const int64_t end = a.first_row(block + 1), short_of_a_page = a.nontemporal ? kTile / 2 - 128 : kTile;
  int64_t m = a.first_row(block);
  const auto some = [&](auto rows, int64_t most) NK_INLINED {
    for (; a.N <= most && m + rows() <= end; m += rows()) f(rows, m);
  };
  if constexpr (kMost == 4) some(std::integral_constant<int64_t, 4>(), short_of_a_page);
  some(std::integral_constant<int64_t, 2>(), a.plain() ? 2 * kTile : short_of_a_page);
  some(std::integral_constant<int64_t, 1>(), 2 * kTile);
}

#if defined(NK_AVX512)
// Whether every few of dx is a whole line, which can be written past the caches as it is.
bool whole_lines(const RowsBackward<float>& a) {
  return kAvx512 && a.nontemporal && a.N % kFewLanes == 0 && reinterpret_cast<uintptr_t>(a.dx) % 64 == 0;
}

NK_AVX512 void stream_backward(const RowsBackward<float>& a, int64_t block) {
  alignas(64) float du[kBuffer];
  const auto last = fresh<float>(a.N);
  // Two rows: the streams of four, which often lie a multiple of a page apart, push each other out of the caches.
  each_together<2>(a, block, [&](auto rows, int64_t m) NK_INLINED {
    const auto keep = [&](int64_t r, int64_t j, const auto& g)
                          NK_INLINED { __builtin_ia32_movntps512(a.dx + (m + r) * a.N + j, g); };
    backward_together<rows()>(a, m, block, last, du, keep);
  });
  nontemporal_fence();
}
#endif

template <class T>
NK_CLONES void cached_backward(const RowsBackward<T>& a, int64_t block) {
  alignas(64) T out[kBuffer];
  alignas(64) compute_t<T> du[kBuffer];
  const auto last = fresh<compute_t<T>>(a.N);
  each_together<kTogether>(a, block, [&](auto rows, int64_t m) NK_INLINED {
    const auto keep = [&](int64_t r, int64_t j, const auto& g) NK_INLINED {
      put<T>(g, (a.nontemporal ? out + r * kBuffer / rows() : a.dx + (m + r) * a.N) + j);
    };
    backward_together<rows()>(a, m, block, last, du, keep);
    for (int64_t r = 0; r < rows() && a.nontemporal; r++)
      copy_nontemporal(out + r * kBuffer / rows(), a.dx + (m + r) * a.N, a.N * sizeof(T));
  });
  if (a.nontemporal) nontemporal_fence();
}

}  // namespace

template <class T>
void narrow_backward(const RowsBackward<T>& a, int64_t block) {
#if defined(NK_AVX512)
  if constexpr (std::is_same_v<T, float>)
    if (whole_lines(a)) return stream_backward(a, block);
#endif
  cached_backward(a, block);
}

#define NK_NARROW(T) template void narrow_backward(const RowsBackward<T>&, int64_t);
NK_NARROW(double)
NK_NARROW(float)
NK_NARROW(bfloat16)
NK_NARROW(float16)

}  // namespace normkernels
#endif
