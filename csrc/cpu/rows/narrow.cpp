// Loops over rows of one tile. Their last lanes overlap those before, so that no row has a rest.
#include "cpu/base/few.h"
#include "cpu/base/moments.h"
#include "cpu/rows/backward.h"

#if defined(NK_SHUFFLES)
namespace normkernels {
namespace {

constexpr int64_t kAhead = 1024;  // elements: how far ahead memory is asked for
constexpr int64_t kTogether = 4;  // rows whose sums for the parameters are read and written once

// The sums of v - about and of its square
template <class C, class T>
NK_INLINE Pair<C> sums_about(const T* x, C about, int64_t N, const Fresh<C>& last) {
  Sum<C> a, b;
  const auto add = [&](const Few<C>& d, int64_t k) NK_INLINED {
    a.part[k] += d;
    b.part[k] += d * d;
  };
  each_few(N, [&](int64_t j, int64_t k) NK_INLINED { add(few(x + j) - about, k); });
  if (N % kFewLanes) add(last ? few(x + N - kFewLanes) - about : Few<C>{}, 3);
  return {a.total(), b.total()};
}

template <class T>
NK_INLINE Moments row_moments(const RowsForward<T>& a, const T* x, const Fresh<compute_t<T>>& last) {
  using C = compute_t<T>;
  const auto sums = [&](C centre) NK_INLINED { return sums_about(x, centre, a.N, last); };
  if (a.mean) return moments_by(sums, x, add_up<C>(few(x)) / C(kFewLanes), a.N, a.eps);
  const double squares = sums(C(0)).b, count = static_cast<double>(a.N);
  return squares_fit<T>(squares, a.N, a.eps) ? Moments{count, 0, squares} : wide_moments(x, false, a.N);
}

// xhat weight + bias of a few values from column j on; w and b, or null, are pointers of the loop's own, so that they
// are read once.
template <class T, class C>
NK_INLINE Few<C> normalised(const T* x, const KnownRow<C>& row, const C* w, const C* b, int64_t j) {
  auto v = (few(x + j) - row.mean) * row.rstd + row.shift;
  if (w) v *= few(w + j);
  if (b) v += few(b + j);
  return v;
}

// y of row m, before the activation; next: a later row, which is asked for
template <class T, class O>
NK_INLINE void forward_row(const RowsForward<T>& a, int64_t m, const T* next, const Fresh<compute_t<T>>& last, O* y) {
  using C = compute_t<T>;
  const int64_t N = a.N;
  if (a.residual) add_tiles(a.x + m * a.x_stride, a.residual + m * a.residual_stride, a.summed + m * N, N);
  const T* x = a.input(m);
  const C *w = a.affine.weight, *b = a.affine.bias;
  const KnownRow<C> known = a.finish(m, row_moments(a, x, last));
  const auto write = [&](int64_t j) NK_INLINED {
    __builtin_prefetch(next + j, 0, 2);
    put(normalised(x, known, w, b, j), y + j);
  };
  for (int64_t j = 0; j + kFewLanes <= N; j += kFewLanes) write(j);
  if (N % kFewLanes) write(N - kFewLanes);
}

// du: the gradient of what the activation is given, kRows rows of it
template <int64_t kRows, class T, class D>
NK_INLINE void backward_rows(const RowsBackward<T>& a, int64_t m, int64_t block, const Fresh<compute_t<T>>& last,
                             const KnownRow<compute_t<T>>* known, const D* du_rows, int64_t du_stride, T* out) {
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
  const int64_t ahead = std::min(m + std::max(kRows, 4096 / N), a.M - kRows);
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
      put(g, (a.nontemporal ? out + r * kTile : a.dx + (m + r) * N) + j);
    }
    if (dw) put(to_w, dw + j);
    if (db) put(to_b, db + j);
  };
  for (int64_t j = 0; j + kFewLanes <= N; j += kFewLanes) write(j, [](auto v) NK_INLINED { return v; });
  if (N % kFewLanes) write(N - kFewLanes, new_ones);
  if (!a.nontemporal) return;
  for (int64_t r = 0; r < kRows; r++) copy_nontemporal(out + r * kTile, a.dx + (m + r) * N, N * sizeof(T));
}

// Rows whose y together is at most a tile, so that one call of the activation serves them all.
template <class T>
NK_INLINE void forward_activated(const RowsForward<T>& a, int64_t begin, int64_t end, int64_t ahead,
                                 const Fresh<compute_t<T>>& last, T* out) {
  alignas(64) compute_t<T> u[kTile];
  const int64_t rows = kTile / a.N;
  for (int64_t m = begin; m < end; m += rows) {
    const int64_t count = std::min(rows, end - m), n = count * a.N;
    for (int64_t r = m; r < m + count; r++)
      forward_row(a, r, a.x + std::min(r + ahead, a.M - 1) * a.x_stride, last, u + (r - m) * a.N);
    activate(a.affine.activation, a.affine.slope, u, n);
    store_tile(u, a.nontemporal ? out : a.y + m * a.N, n);
    if (a.nontemporal) copy_nontemporal(out, a.y + m * a.N, n * sizeof(T));
  }
}

// du of kRows rows: dy times the derivative of the activation
template <int64_t kRows, class T>
NK_INLINE void activation_backward(const RowsBackward<T>& a, int64_t m, const KnownRow<compute_t<T>>* known,
                                   compute_t<T>* du) {
  using C = compute_t<T>;
  alignas(64) C u[kRows * kTile];
  const C *w = a.affine.weight, *b = a.affine.bias;
  for (int64_t r = 0; r < kRows; r++) {
    const T *x = a.x + (m + r) * a.x_stride, *dy = a.dy + (m + r) * a.dy_stride;
    const KnownRow<C> row = known[r];
    map_few(u + r * a.N, a.N, [&](int64_t j) NK_INLINED { return normalised(x, row, w, b, j); });
    map_few(du + r * a.N, a.N, [&](int64_t j) NK_INLINED { return few(dy + j); });
  }
  times_derivative(a.affine.activation, a.affine.slope, u, du, kRows * a.N);
}

template <int64_t kRows, class T>
NK_INLINE void backward_together(const RowsBackward<T>& a, int64_t m, int64_t block, const Fresh<compute_t<T>>& last,
                                 compute_t<T>* du, T* out) {
  KnownRow<compute_t<T>> known[kRows];
  for (int64_t r = 0; r < kRows; r++) known[r] = a.row(m + r);
  if (a.plain()) return backward_rows<kRows>(a, m, block, last, known, a.dy + m * a.dy_stride, a.dy_stride, out);
  activation_backward<kRows>(a, m, known, du);
  backward_rows<kRows>(a, m, block, last, known, du, a.N, out);
}

}  // namespace

template <class T>
NK_CLONES void narrow_forward(const RowsForward<T>& a, int64_t begin, int64_t end) {
  alignas(64) T out[kTile];
  const auto last = fresh<compute_t<T>>(a.N);
  const int64_t ahead = std::max<int64_t>(1, kAhead / a.N);
  if (a.affine.activation != Activation::identity) {
    forward_activated(a, begin, end, ahead, last, out);
  } else {
    for (int64_t m = begin; m < end; m++) {
      T* const y = a.y + m * a.N;
      forward_row(a, m, a.x + std::min(m + ahead, a.M - 1) * a.x_stride, last, a.nontemporal ? out : y);
      if (a.nontemporal) copy_nontemporal(out, y, a.N * sizeof(T));
    }
  }
  if (a.nontemporal) nontemporal_fence();
}

template <class T>
NK_CLONES void narrow_backward(const RowsBackward<T>& a, int64_t block) {
  alignas(64) T out[kTogether * kTile];
  alignas(64) compute_t<T> du[kTogether * kTile];
  const auto last = fresh<compute_t<T>>(a.N);
  const int64_t end = a.first_row(block + 1);
  int64_t m = a.first_row(block);
  for (; m + kTogether <= end; m += kTogether) backward_together<kTogether>(a, m, block, last, du, out);
  for (; m < end; m++) backward_together<1>(a, m, block, last, du, out);
  if (a.nontemporal) nontemporal_fence();
}

#define NK_NARROW(T)                                                     \
  template void narrow_forward(const RowsForward<T>&, int64_t, int64_t); \
  template void narrow_backward(const RowsBackward<T>&, int64_t);
NK_NARROW(double)
NK_NARROW(float)
NK_NARROW(bfloat16)
NK_NARROW(float16)

}  // namespace normkernels
#endif
