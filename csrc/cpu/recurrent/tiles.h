// Cells on one row of units, written to vectorise along the units; gates of a row lie side by side, n units each.
#pragma once

#include <cstdint>

namespace normkernels {

// y = f(z): tanh, or relu
template <class C>
void rnn_tile(bool relu, const C* z, C* y, int64_t n);
// dz = dy f'(z), from y alone
template <class C>
void rnn_backward_tile(bool relu, const C* dy, const C* y, C* dz, int64_t n);

// The sums z of i, f, g, o become the gates; c = f before + i g. c may be before.
template <class C>
void lstm_tile(C* z, const C* before, C* c, int64_t n);
// h = o tanh(m), m being the cell, normalised or not
template <class C>
void lstm_output_tile(const C* o, const C* m, C* h, int64_t n);
// dm and d_o of that
template <class C>
void lstm_output_backward_tile(const C* dh, const C* o, const C* m, C* dm, C* d_o, int64_t n);
// dz from the gates, dc and d_o; dbefore = f dc. d_o is the last quarter of dz; dbefore may be dc.
template <class C>
void lstm_backward_tile(const C* gates, const C* dc, const C* before, C* dz, C* dbefore, int64_t n);

// The sums q of r, z, n become the gates, with those of the input, p, or without (null); h = n + z (before - n)
template <class C>
void gru_tile(C* q, const C* p, const C* before, C* h, int64_t n);
// dq and, of the last third alone, dp from the gates, q of that third and dh; direct = z dh, which may be dh
template <class C>
void gru_backward_tile(const C* gates, const C* q, const C* before, const C* dh, C* dq, C* dp, C* direct, int64_t n);

}  // namespace normkernels
