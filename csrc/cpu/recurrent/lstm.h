// What the normalised LSTMs share on the CPU: where a call's tensors lie, and the cell of one row.
#pragma once

#include "cpu/recurrent/layer_norm.h"

namespace normkernels {

// Forward. Rows: `in` the sequence, `at` where a step is kept, `b` of the running states.
template <class T>
struct LstmForward {
  using C = compute_t<T>;
  int64_t H;
  bool separate, normed;  // the input's term; the cell
  const T* input;
  T *h, *y, *a, *gates;
  C *c, *cells, *raw;  // raw: where it is the normalised cells that are handed on

  // a + input, in a's place, where that is what is normalised
  void sum(int64_t in, int64_t at) const {
    if (!separate) add_tiles(a + at * 4 * H, input + in * 4 * H, a + at * 4 * H, 4 * H);
  }
  C* cell(int64_t at) const { return (raw ? raw : cells) + at * H; }

  // Where the sums of the gates are made
  C* sums(int64_t at, C* room) const { return made_at(gates + at * 4 * H, room); }
  // The gates from these, and the cell; the room is for 4 H numbers
  void gate(int64_t b, int64_t in, int64_t at, C* z, C* room) const {
    if (separate) add_widened(input + in * 4 * H, z, room, 4 * H);
    lstm_tile(z, c + b * H, cell(at), H);
    store_made(z, gates + at * 4 * H, 4 * H);
  }

  // h and the state handed on, from o and m: the cell, normalised or not. h may be m.
  void output(int64_t b, int64_t in, int64_t at, const C* o, const C* m, C* out) const {
    const C* handed_on = raw ? m : cell(at);
    if (raw) std::copy(m, m + H, cells + at * H);
    std::copy(handed_on, handed_on + H, c + b * H);
    lstm_output_tile(o, m, out, H);
    store_tile(out, y + in * H, H);
    store_tile(out, h + b * H, H);
  }
};

template <class T>
LstmForward<T> lstm_forward(const Tensor& input, const Tensor& h, const Tensor& y, const Tensor& a, const Tensor& gates,
                            const Tensor& c, const Tensor& cells, const OptionalTensor& raw_cells,
                            const OptionalTensor& cell_mean, bool separate) {
  using C = compute_t<T>;
  return {.H = h.size(1),
          .separate = separate,
          .normed = cell_mean.has_value(),
          .input = pointer<T>(input),
          .h = pointer<T>(h),
          .y = pointer<T>(y),
          .a = pointer<T>(a),
          .gates = pointer<T>(gates),
          .c = pointer<C>(c),
          .cells = pointer<C>(cells),
          .raw = pointer<C>(raw_cells)};
}

template <class T>
struct LstmBackward {
  using C = compute_t<T>;
  int64_t H;
  bool normed;
  const T *dy, *gates;
  const C *cells, *raw, *previous;  // raw: or null
  T *dh, *dinput, *da;              // da may be dinput
  C* dc;

  const C* cell(int64_t in) const { return (raw ? raw : cells) + in * H; }
  // Whether what the next step asks of the cell goes through the norm, or joins behind it.
  bool joins_before() const { return !normed || raw; }

  // Where dz is made
  C* sums(int64_t in, C* room) const { return made_at(dinput + in * 4 * H, room); }
  // dm and d_o from m; the room is for 2 H numbers
  void output(int64_t b, int64_t in, const C* o, const C* m, C* dm, C* d_o, C* room) const {
    sum_widened(dy + in * H, dh + b * H, room, room + H, H);
    lstm_output_backward_tile(room, o, m, dm, d_o, H);
    if (joins_before()) add_tiles(dm, dc + b * H, dm, H);
  }

  // dz from the cell's gradient; dz has d_o in its last quarter
  void gate(int64_t b, int64_t in, const C* gate, const C* dcell, C* dz) const {
    lstm_backward_tile(gate, dcell, previous + in * H, dz, dc + b * H, H);
  }
};

template <class T>
LstmBackward<T> lstm_backward(const Tensor& dy, const Tensor& gates, const Tensor& cells,
                              const OptionalTensor& raw_cells, const Tensor& previous_cells, const Tensor& dh,
                              const Tensor& dinput, const Tensor& da, const Tensor& dc,
                              const OptionalTensor& cell_mean) {
  using C = compute_t<T>;
  return {.H = dh.size(1),
          .normed = cell_mean.has_value(),
          .dy = pointer<T>(dy),
          .gates = pointer<T>(gates),
          .cells = pointer<C>(cells),
          .raw = pointer<C>(raw_cells),
          .previous = pointer<C>(previous_cells),
          .dh = pointer<T>(dh),
          .dinput = pointer<T>(dinput),
          .da = pointer<T>(da),
          .dc = pointer<C>(dc)};
}

}  // namespace normkernels
