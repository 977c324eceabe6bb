// Rules of the channel family on tables of statistics, vectorised along them.
#pragma once

#include "cpu/base/simd.h"

namespace normkernels {

// Batch Renormalization's r and d, and with them scale and shift of xhat: weight * (xhat * r + d) + bias.
template <class C>
struct Correction {
  const C *running_mean = nullptr, *running_std = nullptr;  // before this batch
  const C *weight, *bias;                                   // or null
  C r_max = 0, d_max = 0;
  C *r, *d, *scale, *shift;
};
template <class C>
void correct_tile(const C* mean, const C* rstd, const Correction<C>& correction, int64_t first, int64_t n);

// scale and shift of r and d that are there
template <class C>
void corrected_tile(const Correction<C>& correction, int64_t first, int64_t n);

// One memory of Streaming Normalization: of means and scales, or of the gradients of both.
template <class C>
struct Memory {
  const C *long_term, *short_term, *counts;
  C* new_short_term;
  C of_long, of_short, of_current;
};

// What is used once `arrived` has joined the short term; that stands in for a long term not yet there.
template <class C>
void use_tile(const Memory<C>& memory, int64_t first, const C* arrived, C* used, int64_t n);

}  // namespace normkernels
