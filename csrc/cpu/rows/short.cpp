// Rows with fewer values than a vector has lanes: a block of them side by side, each in a lane of its own.
#include "cpu/rows/backward.h"

namespace normkernels {
namespace {

constexpr int64_t kSide = kFewLanes;  // rows side by side

template <class C>
struct Columns {
  alignas(64) C at[kFewLanes * kSide];
  NK_INLINE C* operator[](int64_t j) { return at + j * kSide; }
};

// Rows as columns, the first of them as column `side`; zeros where there is no row
template <class T>
NK_INLINE void transpose_in(const T* from, int64_t stride, int64_t rows, int64_t N, Columns<compute_t<T>>& to,
                            int64_t side = 0) {
  if (side == 0 && rows < kSide) std::fill_n(to.at, N * kSide, compute_t<T>(0));
  for (int64_t r = 0; r < rows; r++)
    for (int64_t j = 0; j < N; j++) to[j][side + r] = load(from[r * stride + j]);
}

template <class T>
NK_INLINE void transpose_out(Columns<compute_t<T>>& from, int64_t rows, int64_t N, T* to) {
  for (int64_t r = 0; r < rows; r++)
    for (int64_t j = 0; j < N; j++) to[r * N + j] = store<T>(from[j][r]);
}

// f(j, r) of every value
template <class F>
NK_INLINE void each_value(int64_t N, const F& f) {
  for (int64_t j = 0; j < N; j++) {
#pragma omp simd
    for (int64_t r = 0; r < kSide; r++) f(j, r);
  }
}

// What is known of each row, a lane each; zeros where there is no row
template <class C>
struct Known {
  C mean[kSide] = {}, rstd[kSide] = {}, shift[kSide] = {};
  NK_INLINE void set(int64_t r, const KnownRow<C>& row) {
    mean[r] = row.mean, rstd[r] = row.rstd, shift[r] = row.shift;
  }
  NK_INLINE C xhat(C x, int64_t r) const { return (x - mean[r]) * rstd[r] + shift[r]; }
};

// out = xhat weight + bias
template <class C>
NK_INLINE void affine_columns(Columns<C>& x, const Known<C>& known, const Affine<C>& affine, int64_t N,
                              Columns<C>& out) {
  for (int64_t j = 0; j < N; j++) {
    const C w = affine.weight ? affine.weight[j] : C(1), b = affine.bias ? affine.bias[j] : C(0);
#pragma omp simd
    for (int64_t r = 0; r < kSide; r++) out[j][r] = known.xhat(x[j][r], r) * w + b;
  }
}

template <class T>
NK_INLINE void measure(const RowsForward<T>& a, int64_t m, int64_t rows, Columns<compute_t<T>>& x,
                       Known<compute_t<T>>& known) {
  using C = compute_t<T>;
  const C share = C(1) / static_cast<C>(a.N);
  C centre[kSide] = {}, left[kSide] = {}, squares[kSide] = {};
  if (a.mean) {
    each_value(a.N, [&](int64_t j, int64_t r) NK_INLINED { centre[r] += x[j][r]; });
    for (C& c : centre) c *= share;
  }
  each_value(a.N, [&](int64_t j, int64_t r) NK_INLINED {
    const C d = x[j][r] - centre[r];
    left[r] += d;
    squares[r] += d * d;
  });
  for (int64_t r = 0; r < rows; r++) {
    const double count = static_cast<double>(a.N), lost = a.mean ? left[r] / count : 0,
                 m2 = squares[r] - left[r] * lost;
    const Moments found = {count, centre[r] + lost, m2};
    known.set(r, a.finish(m + r, squares_fit<T>(m2, a.N, a.eps) ? found : wide_moments(a.input(m + r), a.mean, a.N)));
  }
}

}  // namespace

template <class T>
NK_CLONES void short_forward(const RowsForward<T>& a, int64_t begin, int64_t end) {
  Columns<compute_t<T>> x, y, g;
  for (int64_t m = begin; m < end; m += kSide) {
    const int64_t rows = std::min(kSide, end - m);
    if (a.residual)
      for (int64_t r = m; r < m + rows; r++)
        add_tiles(a.x + r * a.x_stride, a.residual + r * a.residual_stride, a.summed + r * a.N, a.N);
    transpose_in(a.input(m), a.residual ? a.N : a.x_stride, rows, a.N, x);
    Known<compute_t<T>> known;
    measure(a, m, rows, x, known);
    affine_columns(x, known, a.affine, a.N, y);
    if (a.gate) {
      transpose_in(a.gate + m * a.gate_stride, a.gate_stride, rows, a.N, g);
      gate_tile(a.affine.activation, a.affine.slope, g.at, y.at, a.N * kSide);
    } else if (!a.plain()) {
      a.complete(m, 0, y.at, a.N * kSide);
    }
    transpose_out(y, rows, a.N, a.y + m * a.N);
  }
}

template <class T>
NK_CLONES void short_backward(const RowsBackward<T>& a, int64_t block) {
  using C = compute_t<T>;
  const C* w = a.affine.weight;
  Columns<C> x, du, u, g;
  C sums_w[kFewLanes] = {}, sums_b[kFewLanes] = {};
  for (int64_t m = a.first_row(block), end = a.first_row(block + 1); m < end; m += kSide) {
    const int64_t rows = std::min(kSide, end - m);
    Known<C> known;
    each_run(a, m, m + rows, [&](const auto& run, int64_t first, int64_t last) NK_INLINED {
      for (int64_t r = first; r < last; r++) known.set(r - m, run.row(r));
      transpose_in(run.x + first * run.x_stride, run.x_stride, last - first, a.N, x, first - m);
      transpose_in(run.dy + first * run.dy_stride, run.dy_stride, last - first, a.N, du, first - m);
    });
    if (!a.plain()) {
      affine_columns(x, known, a.affine, a.N, u);
      if (!a.gate) a.through(m, 0, u.at, du.at, a.N * kSide);
    }
    if (a.gate) {
      each_run(a, m, m + rows, [&](const auto& run, int64_t first, int64_t last) NK_INLINED {
        transpose_in(run.gate + first * run.gate_stride, run.gate_stride, last - first, a.N, g, first - m);
      });
      C* const to = a.dgate ? g.at : nullptr;
      gate_backward_tile(a.affine.activation, a.affine.slope, g.at, u.at, du.at, to, a.N * kSide);
      if (a.dgate) transpose_out(g, rows, a.N, a.dgate + m * a.N);
    }
    C of_g[kSide] = {}, of_g_xhat[kSide] = {};
    for (int64_t j = 0; j < a.N; j++) {
      const C weight = w ? w[j] : C(1);
      C to_w = 0, to_b = 0;
#pragma omp simd reduction(+ : to_w, to_b)
      for (int64_t r = 0; r < kSide; r++) {
        const C d = du[j][r], h = known.xhat(x[j][r], r);
        x[j][r] = h;
        du[j][r] = d * weight;
        of_g[r] += d * weight;
        of_g_xhat[r] += d * weight * h;
        to_w += d * h;
        to_b += d;
      }
      sums_w[j] += to_w;
      sums_b[j] += to_b;
    }
    const C share = C(1) / static_cast<C>(a.N), centred = a.mean ? share : C(0);
    each_value(a.N, [&](int64_t j, int64_t r) NK_INLINED {
      du[j][r] = known.rstd[r] * (du[j][r] - of_g[r] * centred - x[j][r] * of_g_xhat[r] * share);
    });
    if (a.dsummed) {
      each_run(a, m, m + rows, [&](const auto& run, int64_t first, int64_t last) NK_INLINED {
        transpose_in(run.dsummed + first * run.dsummed_stride, run.dsummed_stride, last - first, a.N, u, first - m);
      });
      each_value(a.N, [&](int64_t j, int64_t r) NK_INLINED { du[j][r] += u[j][r]; });
    }
    transpose_out(du, rows, a.N, a.dx + m * a.N);
  }
  if (a.dweight) std::copy_n(sums_w, a.N, a.dweight + block * a.N);
  if (a.dbias) std::copy_n(sums_b, a.N, a.dbias + block * a.N);
}

#define NK_SHORT(T)                                                     \
  template void short_forward(const RowsForward<T>&, int64_t, int64_t); \
  template void short_backward(const RowsBackward<T>&, int64_t);
NK_SHORT(double)
NK_SHORT(float)
NK_SHORT(bfloat16)
NK_SHORT(float16)

}  // namespace normkernels
