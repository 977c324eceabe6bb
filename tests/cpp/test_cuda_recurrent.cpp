// The CUDA kernels of recurrent cells, run on the CPU: a step forward and backward.
#include "cuda/recurrent/batch_norm_lstm_backward.cuh"
#include "cuda/recurrent/batch_norm_lstm_forward.cuh"
#include "cuda/recurrent/batch_norm_rnn.cuh"
#include "cuda/recurrent/layer_norm_gru.cuh"
#include "cuda/recurrent/layer_norm_lstm_backward.cuh"
#include "cuda/recurrent/layer_norm_lstm_forward.cuh"
#include "cuda/recurrent/layer_norm_rnn.cuh"
#include "recurrent_cell_backward.h"

template <template <class> class Forward, template <class> class Backward, int G, class T>
void check(const Case& c) {
  const auto step = [](const auto& p) { run_step(p, kDevice); };
  Cell<T, G> cell(c);
  Forward<T> p{};
  cell.fill(p);
  step(p);
  cell.check_forward();
  if (!c.kept) return;
  CellBackward<T, G> backward{cell};
  backward.template run<Backward<T>>(step);
  backward.check_backward();
}

template <class T>
void check_case(const Case& c, int gates) {
  if (c.groups.empty() && gates == 1) return check<BatchNormRnnForward, BatchNormRnnBackward, 1, T>(c);
  if (c.groups.empty()) return check<BatchNormLstmForward, BatchNormLstmBackward, 4, T>(c);
  if (gates == 1) return check<LayerNormRnnForward, LayerNormRnnBackward, 1, T>(c);
  if (gates == 3) return check<LayerNormGruForward, LayerNormGruBackward, 3, T>(c);
  check<LayerNormLstmForward, LayerNormLstmBackward, 4, T>(c);
}

template <class T>
void check_add() {
  const int64_t batch = 5, H = 100;
  const auto values = normal(batch * H, 1);
  Buffer<T> dh(values);
  const Buffer<T> before(values);
  Buffer<acc_t<T>> direct(normal(batch * H, 2));
  LayerNormGruBackward<T> p{};
  p.dh = dh.data, p.direct = direct.data, p.hidden = H;
  layer_norm_gru_add(p, batch, kDevice);
  for (int64_t i = 0; i < batch * H; ++i)
    check_close("dh + direct", i, dh[i], before[i] + direct[i], kUlp<T>, kSmall<T>);
}

template <class T>
void check_all() {
  const int64_t V = kPack<T>, long_row = 256 * V;
  const bool wide = sizeof(T) == 2;
  const std::vector<int64_t> none;
  for (const bool separate : {true, false}) {
    // packed, some threads idle; several chunks of a row; odd lengths; more rows than lines; not aligned
    for (const auto& [H, B, n, aligned] :
         std::vector<std::tuple<int64_t, int64_t, int64_t, bool>>{{4 * V, 3, 3, true},
                                                                  {long_row + 2 * V, 2, 1, true},
                                                                  {33, 5, 4, true},
                                                                  {40, 70, 67, true},
                                                                  {48, 2, 2, false}}) {
      const bool present = H != 48;
      Case c{H, B, n, {1}, separate, aligned, kNone, wide && separate, present};
      check_case<T>(c, 1);
      c.groups = {2, 1}, check_case<T>(c, 3);
      c.groups = {4}, c.cell = kOutput, check_case<T>(c, 4);
    }
    for (const auto& groups : std::vector<std::vector<int64_t>>{{3}, {1, 1, 1}})
      check_case<T>({24, 3, 2, groups, separate, true}, 3);
    for (const CellNorm cell : {kNone, kOutput, kCarried}) {
      check_case<T>({24, 3, 2, {1, 1, 1, 1}, separate, true, cell, wide}, 4);
      check_case<T>({35, 3, 2, {4}, separate, true, cell, false, cell != kOutput, cell != kCarried}, 4);
      // units of two blocks; more and fewer rows than threads
      for (const bool training : {true, false}) {
        check_case<T>({37, 40, 35, none, separate, true, cell, wide, true, true, training}, 4);
        check_case<T>({16, 4, 2, none, separate, false, cell, false, cell == kNone, cell != kOutput, training}, 4);
      }
    }
    for (const bool training : {true, false}) {
      check_case<T>({37, 40, 35, none, separate, true, kNone, wide, true, true, training}, 1);
      check_case<T>({16, 4, 2, none, separate, true, kNone, false, false, training, training, true}, 1);
    }
    check_case<T>({64, 3, 2, {1}, separate, true, kNone, false, true, false}, 1);
    check_case<T>({64, 3, 3, {1}, separate, true, kNone, false, true, true, true, true}, 1);
  }
  check_add<T>();
}

int main() {
  check_all<float>();
  check_all<double>();
  check_all<__nv_bfloat16>();
  return report("cuda kernels of recurrent cells on the cpu");
}
