// Gradients of parameters: threads sum into lines of a table, and the lines are added in order.
#pragma once

#include "cpu/base/tensors.h"
#include "cpu/base/work.h"

namespace normkernels {

// The (lines, N) table, zeros at first, in which a parameter's gradient is summed; nothing if the gradient is not
// wanted.
template <class C>
class GradientTable {
 public:
  GradientTable(const OptionalTensor& out, int64_t lines, int64_t N) : out_(out), lines_(lines), N_(N) {
    if (out) table_.resize(lines * N);
  }
  C* data() { return out_ ? table_.data() : nullptr; }
  C* line(int64_t i) { return out_ ? data() + i * N_ : nullptr; }

  // The sum of the lines, in order
  void finish() {
    if (!out_) return;
    for_each((N_ + kTile - 1) / kTile, [&](int64_t t) {
      const int64_t j = t * kTile, n = std::min(kTile, N_ - j);
      C* total = data() + j;
      for (int64_t line = 1; line < lines_; line++) add_tiles(total, data() + line * N_ + j, total, n);
      dispatch(*out_, "parameter gradient", [&](auto element) {
        using W = decltype(element);
        if constexpr (std::is_same_v<compute_t<W>, C>) store_tile(total, pointer<W>(*out_) + j, n);
      });
    });
  }

 private:
  OptionalTensor out_;
  int64_t lines_, N_;
  Scratch<C> table_;
};

template <class... Tables>
void finish(Tables&... tables) {
  (tables.finish(), ...);
}

// backward(a), whose blocks sum the gradients of weight and bias into a line each.
template <class Blocks>
void backward_in_blocks(Blocks a, int64_t N, const OptionalTensor& dweight, const OptionalTensor& dbias) {
  GradientTable<typename Blocks::C> dw(dweight, a.blocks(), N), db(dbias, a.blocks(), N);
  a.dweight = dw.data();
  a.dbias = db.data();
  backward(a);
  finish(dw, db);
}

}  // namespace normkernels
