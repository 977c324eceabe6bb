// The row family on the CPU, backward: dx, dweight and dbias in one sweep over x and dy.
//
// Rows are taken in blocks whose number depends on the shape alone; a block sums its parameter gradients row by row
// into one line of a table, and the lines are added in order: no atomics, and the same bits for any number of threads.
#pragma once

#include "cpu/rows/forward.h"

namespace normkernels {

struct Sums {
  double g = 0, g_xhat = 0;

  void add(const Sums& part) {
    g += part.g;
    g_xhat += part.g_xhat;
  }
};

template <class T>
struct RowsBackward {
  using C = compute_t<T>;
  int64_t M, N;
  const T* dy;
  int64_t dy_stride;
  Runs dy_runs = {};
  const T* dsummed;  // or null
  int64_t dsummed_stride;
  Runs dsummed_runs = {};
  const T* x;
  int64_t x_stride;
  Runs x_runs = {};
  Affine<C> affine;
  int64_t samples = 1;      // of as many rows each, with a weight and a bias of their own
  const T* gate = nullptr;  // or what the activation is given
  int64_t gate_stride = 0;
  Runs gate_runs = {};
  const C *mean, *rstd;                                     // mean: null without centring
  T *dx, *dgate = nullptr;                                  // dgate: null where it is not wanted
  C *dweight = nullptr, *dbias = nullptr;                   // (blocks, samples, N) tables of zeros, or null
  bool nontemporal = sizeof(T) >= 4 && large<T>(M * N, 3);  // in 16 bits the copy costs more than it saves

  int64_t first = 0;  // row of the sample

  // Of a sample
  int64_t rows() const { return M / samples; }
  int64_t blocks() const { return std::clamp<int64_t>(rows() / 32, 1, std::max<int64_t>(1, 64 / samples)); }
  int64_t first_row(int64_t block) const { return first + block * rows() / blocks(); }

  // The same for a block of a sample alone, whose line of the tables is where line `block` of one sample would be
  RowsBackward of_sample(int64_t sample, int64_t block) const {
    RowsBackward own = *this;
    own.first = sample * rows();
    own.affine = affine_of(affine, sample * N);
    for (C** table : {&own.dweight, &own.dbias})
      if (*table) *table += (block * (samples - 1) + sample) * N;
    return own;
  }

  // f of all that is read row by row
  template <class F>
  NK_INLINE static void each_read(auto& a, const F& f) {
    f(a.dy, a.dy_stride, a.dy_runs);
    f(a.dsummed, a.dsummed_stride, a.dsummed_runs);
    f(a.x, a.x_stride, a.x_runs);
    f(a.gate, a.gate_stride, a.gate_runs);
  }
  bool one_run() const { return !dy_runs && !dsummed_runs && !x_runs && !gate_runs; }

  // The mean that was kept is rounded: of a row far from 0 what it lost is found again.
  KnownRow<C> row(int64_t m) const {
    if (!mean) return {C(0), rstd[m], C(-0.0)};
    if (std::fabs(mean[m]) * rstd[m] <= kNear) return {mean[m], rstd[m], C(-0.0)};
    double left = 0;
    for_each_tile(0, N, [&](int64_t j, int64_t n) { left += sum_about(x + m * x_stride + j, mean[m], n); });
    return {mean[m], rstd[m], static_cast<C>(-left / static_cast<double>(N) * rstd[m])};
  }

  // Rows of so much that it comes from memory are taken one at a time, which it answers faster than several streams;
  // others together, so that the sums for the parameters are read and written once for all of them. The same bits.
  bool apart() const { return M * N * 3 * static_cast<int64_t>(sizeof(T)) >= int64_t{8} << 20; }

  bool plain() const { return affine.activation == Activation::identity && !gate; }

  // From dy to du, the gradient of u: of row m from column j on
  void through(int64_t m, int64_t j, const C* u, C* du, int64_t n) const {
    if (!gate) return times_derivative(affine.activation, affine.slope, u, du, n);
    T* const to = dgate ? dgate + m * N + j : nullptr;
    gate_backward_tile(affine.activation, affine.slope, gate + m * gate_stride + j, u, du, to, n, nontemporal);
  }

  // Call f with du from column j on: dy itself without an activation and a gate, else the row's du.
  template <class F>
  void with_du(int64_t m, int64_t j, const C* du, const F& f) const {
    if (plain()) {
      f(dy + m * dy_stride + j);
    } else {
      f(du + j);
    }
  }

  // Fills du with an activation or a gate; adds the sums over a tile of g and g * xhat to total.
  void sums(int64_t m, const KnownRow<C>& row, int64_t j, int64_t n, C* du, Sums& total) const {
    const T* s = x + m * x_stride + j;
    const TileAffine<C> k = affine.at(row, j);
    if (!plain()) {
      alignas(64) C u[kTile];
      affine_tile(s, k, u, n);
      load_tile(dy + m * dy_stride + j, du + j, n);
      through(m, j, u, du + j, n);
    }
    with_du(m, j, du, [&](const auto* d) {
      const Pair<C> part = gradient_sums(d, s, k, n);
      total.add({part.a, part.b});
    });
  }

  void write(int64_t m, const KnownRow<C>& row, int64_t j, int64_t n, const C* du, const Sums& total,
             int64_t block) const {
    alignas(64) T out[kTile];
    const Pair<C> means = {mean ? static_cast<C>(total.g / N) : C(0), static_cast<C>(total.g_xhat / N)};
    const T* s = x + m * x_stride + j;
    const T* ds = dsummed ? dsummed + m * dsummed_stride + j : nullptr;
    T* const target = nontemporal ? out : dx + m * N + j;
    with_du(m, j, du, [&](const auto* d) {
      gradients(d, s, ds, affine.at(row, j), means, target, dweight ? dweight + block * N + j : nullptr,
                dbias ? dbias + block * N + j : nullptr, n);
    });
    if (nontemporal) copy_nontemporal(out, dx + m * N + j, n * sizeof(T));
  }
};

// The rows [begin, end) of a block
template <class T>
void backward_block(const RowsBackward<T>& a, int64_t block, int64_t begin, int64_t end) {
  const int64_t rows = group_rows(2 * a.N * sizeof(T));
  std::array<KnownRow<compute_t<T>>, kGroup> known;
  std::array<Sums, kGroup> sums;
  Scratch<compute_t<T>> du(a.plain() ? 0 : rows * a.N);  // the group's du, so that no derivative is taken twice
  const auto row_du = [&](int64_t row) { return du.data() + (a.plain() ? 0 : row * a.N); };
  for (int64_t first = begin; first < end; first += rows) {
    const int64_t last = std::min(end, first + rows);
    for (int64_t m = first; m < last; m++) {
      known[m - first] = a.row(m);
      Sums& row = sums[m - first] = {};
      Sums segment;
      for_each_tile(0, a.N, [&](int64_t j, int64_t n) {
        a.sums(m, known[m - first], j, n, row_du(m - first), segment);
        if ((j + n) % kSegment == 0 || j + n == a.N) row.add(std::exchange(segment, {}));
      });
    }
    for_each_step(0, a.N, [&](int64_t j, int64_t n) {
      for (int64_t m = first; m < last; m++) {
        if (m + rows < end) {
          prefetch_tile(a.x + (m + rows) * a.x_stride + j, n);
          prefetch_tile(a.dy + (m + rows) * a.dy_stride + j, n);
          if (a.dsummed) prefetch_tile(a.dsummed + (m + rows) * a.dsummed_stride + j, n);
        }
        a.write(m, known[m - first], j, n, row_du(m - first), sums[m - first], block);
      }
    });
  }
  nontemporal_fence();
}

// Shares one long row among the threads; each owns its columns of the parameter gradients.
template <class T>
void backward_split(const RowsBackward<T>& a, int64_t m, int64_t block) {
  Scratch<Sums> parts(segments(a.N));
  Scratch<compute_t<T>> du(a.plain() ? 0 : a.N);
  const KnownRow<compute_t<T>> known = a.row(m);
  for_each_segment(a.N, [&](int64_t s, int64_t begin, int64_t end) {
    for_each_tile(begin, end, [&](int64_t j, int64_t n) { a.sums(m, known, j, n, du.data(), parts[s]); });
    nontemporal_fence();  // dgate
  });
  Sums row;
  for (const Sums& part : parts) row.add(part);
  for_each_segment(a.N, [&](int64_t, int64_t begin, int64_t end) {
    for_each_tile(begin, end, [&](int64_t j, int64_t n) { a.write(m, known, j, n, du.data(), row, block); });
    nontemporal_fence();
  });
}

// f(a of its sample, block) for every block
template <class T, class F>
void each_block(const RowsBackward<T>& a, const F& f) {
  const int64_t blocks = a.blocks();
  for_each(a.samples * blocks, [&](int64_t i) { f(a.of_sample(i / blocks, i % blocks), i % blocks); });
}

// f(a of its run, block, first, end) for the rows of every block
template <class T, class F>
void each_block_run(const RowsBackward<T>& a, const F& f) {
  each_block(a, [&](const auto& own, int64_t block) {
    each_run(own, own.first_row(block), own.first_row(block + 1),
             [&](const auto& run, int64_t begin, int64_t end) { f(run, block, begin, end); });
  });
}

template <class T>
void backward(const RowsBackward<T>& a) {
  if constexpr (sizeof(T) == 2)
    if (paired(a.N, a.plain())) return paired_backward(a);
  if (short_rows(a.N)) return each_block(a, [](const auto& own, int64_t block) { short_backward(own, block); });
  // Where 16 bits are converted by several instructions, these are the limit, and four rows at once leave them too few
  // registers.
  const bool few_rows = sizeof(T) == 2 && a.N >= 256 && !converts<T>();
  const bool at_once = narrow(a.N, a.plain() ? longest(a.N) : 2 * kTile) && !few_rows;
  if (at_once) return each_block_run(a, narrow_backward<T>);
  if (!split_rows(a.M, a.N)) return each_block_run(a, backward_block<T>);
  for (int64_t i = 0; i < a.samples * a.blocks(); i++) {
    const int64_t block = i % a.blocks();
    const auto own = a.of_sample(i / a.blocks(), block);
    each_run(own, own.first_row(block), own.first_row(block + 1), [&](const auto& run, int64_t begin, int64_t end) {
      for (int64_t m = begin; m < end; m++) backward_split(run, m, block);
    });
  }
}

}  // namespace normkernels
