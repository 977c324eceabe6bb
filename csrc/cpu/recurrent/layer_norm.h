// The recurrent family on the CPU: the walk over the steps of a sequence, and norms of a row of sums.
//
// A step is one matrix product and one pass over its rows, which stay in the caches meanwhile. A row's result depends
// on nothing else; sums over rows are added up in an order fixed by the size of the batch.
#pragma once

#include <cmath>
#include <vector>

#include "cpu/base/gradient_table.h"
#include "cpu/recurrent/product.h"
#include "cpu/recurrent/tiles.h"

namespace normkernels {

// p in the compute type: itself, or in that room
template <class T>
const compute_t<T>* widened(const T* p, compute_t<T>* room, int64_t n) {
  if constexpr (std::is_same_v<T, compute_t<T>>) {
    return p;
  } else {
    load_tile(p, room, n);
    return room;
  }
}

// Where numbers that will be stored at p are made: there, or in that room if p is narrower; store_made() stores them.
template <class T>
compute_t<T>* made_at(T* p, compute_t<T>* room) {
  if constexpr (std::is_same_v<T, compute_t<T>>) return p;
  return room;
}
template <class T>
void store_made(const compute_t<T>* made, T* p, int64_t n) {
  if constexpr (!std::is_same_v<T, compute_t<T>>) store_tile(made, p, n);
}

// z += p; the room is for p in the compute type
template <class T>
void add_widened(const T* p, compute_t<T>* z, compute_t<T>* room, int64_t n) {
  add_tiles<compute_t<T>>(z, widened(p, room, n), z, n);
}

// out = p + q; the room is for n numbers
template <class T>
void sum_widened(const T* p, const T* q, compute_t<T>* out, compute_t<T>* room, int64_t n) {
  const compute_t<T>* wide = widened(p, out, n);
  add_tiles<compute_t<T>>(wide, widened(q, room, n), out, n);
}

// Forward: a = h weight_hh^T, then f(step, where it is kept), step by step.
template <class F>
void walk_forward(const Tensor& input, const Tensor& weight_hh, const OptionalTensor& batch_sizes, const Tensor& h,
                  const Tensor& a, bool reverse, const F& f) {
  const int64_t total = input.size(0);
  const std::vector<SequenceStep> steps = walk(total, h.size(0), batch_sizes, reverse);
  const Product product(torch::stable::transpose(weight_hh, 0, 1), steps.size(), h.size(0));
  for (const SequenceStep& step : steps) {
    const int64_t at = kept(step, a, total);
    product(h, 0, a, at, step.rows);
    f(step, at);
  }
}

// Backward, the other way round: f(step), then dh = da weight_hh.
template <class F>
void walk_backward(const Tensor& da, const Tensor& weight_hh, const OptionalTensor& batch_sizes, const Tensor& dh,
                   bool reverse, const F& f) {
  const std::vector<SequenceStep> steps = walk(da.size(0), dh.size(0), batch_sizes, !reverse);
  const Product product(weight_hh, steps.size(), dh.size(0));
  for (const SequenceStep& step : steps) {
    f(step);
    product(da, step.first, dh, 0, step.rows);
  }
}

// f(row, room) for every row of a step, with room for so many numbers
template <class C, class F>
void each_row(int64_t rows, int64_t columns, int64_t room, const F& f) {
  parallel_for(0, rows, grain(8 * columns), [&](int64_t begin, int64_t end) {
    const Room<C> numbers(room);
    for (int64_t b = begin; b < end; b++) f(b, numbers.get());
  });
}

// Rows of a batch whose parameter gradients are summed in a line of their own.
struct Parts {
  int64_t batch;
  int64_t count() const { return std::clamp<int64_t>(batch / 4, 1, 64); }
  int64_t rows() const { return (batch + count() - 1) / count(); }
};

// The same with the line of each row: f(row, line, room)
template <class C, class F>
void each_row_of_parts(const Parts& parts, int64_t rows, int64_t columns, int64_t room, const F& f) {
  const int64_t R = parts.rows();
  parallel_for(0, (rows + R - 1) / R, grain(8 * columns * R), [&](int64_t begin, int64_t end) {
    const Room<C> numbers(room);
    for (int64_t b = begin * R; b < std::min(end * R, rows); b++) f(b, b / R, numbers.get());
  });
}

// Layer norm of a row, group by group of adjacent gates.
template <class T>
struct LayerNorm {
  using C = compute_t<T>;
  std::vector<int64_t> groups;  // columns of each
  double eps;
  const C *weight, *bias;  // or null

  LayerNorm(std::vector<int64_t> gates, int64_t hidden, double eps, const C* weight, const C* bias)
      : groups(std::move(gates)), eps(eps), weight(weight), bias(bias) {
    for (int64_t& group : groups) group *= hidden;
  }
  int64_t count() const { return groups.size(); }

  // f(group, first column, columns, what is known of these)
  template <class F>
  void each(const C* mean, const C* rstd, const F& f) const {
    for (int64_t g = 0, at = 0; g < count(); at += groups[g++])
      f(g, at, groups[g], TileAffine<C>{mean[g], rstd[g], weight ? weight + at : nullptr, bias ? bias + at : nullptr});
  }

  // q = (a - mean) rstd weight + bias
  void forward(const T* a, C* mean, C* rstd, C* q) const {
    for (int64_t g = 0, at = 0; g < count(); at += groups[g++]) {
      Moments moments;
      for_each_tile(at, at + groups[g],
                    [&](int64_t j, int64_t n) { merge(moments, right_moments(a + j, true, n, eps)); });
      mean[g] = static_cast<C>(moments.mean);
      rstd[g] = static_cast<C>(1 / std::sqrt(moments.m2 / moments.count + eps));
    }
    affine(a, mean, rstd, q);
  }
  void affine(const T* a, const C* mean, const C* rstd, C* q) const {
    each(mean, rstd, [&](int64_t, int64_t at, int64_t n, const auto& known) { affine_tile(a + at, known, q + at, n); });
  }

  // da = that of q, plus more (or null); dweight and dbias (or null) are added to
  void backward(const C* dq, const T* a, const C* mean, const C* rstd, const T* more, T* da, C* dweight,
                C* dbias) const {
    each(mean, rstd, [&](int64_t, int64_t at, int64_t n, const auto& known) {
      double sum = 0, product = 0;
      for_each_tile(at, at + n, [&](int64_t j, int64_t k) {
        const C* w = weight ? weight + j : nullptr;
        const Pair<C> sums = gradient_sums(dq + j, a + j, TileAffine<C>{known.mean, known.rstd, w, nullptr}, k);
        sum += sums.a;
        product += sums.b;
      });
      const Pair<C> means = {static_cast<C>(sum / n), static_cast<C>(product / n)};
      gradients(dq + at, a + at, more ? more + at : nullptr, known, means, da + at, dweight ? dweight + at : nullptr,
                dbias ? dbias + at : nullptr, n);
    });
  }
};

}  // namespace normkernels
