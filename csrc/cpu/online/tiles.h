// Online Normalization on tables (N, C), a row for each sample: the walk over samples, vectorised over channels.
#pragma once

#include "cpu/base/simd.h"

namespace normkernels {

// The row of a sample: what it met, and the means of xhat and xhat^2 over it. xhat, square: null where a sample is one
// value. weight, bias: never null.
template <class C>
struct Met {
  C *mean, *rstd, *xhat, *square;
  const C *weight, *bias;
};

// The statistics meet one sample with means m and variances s (null: 0) and move on by rate. Fills what they met;
// returns the sum over channels of the mean of (xhat w + b)^2.
template <class T, class C>
C meet_tile(const T* m, const C* s, double rate, double eps, double* state_mean, double* state_var, const Met<C>& met,
            int64_t n);

// scale = rstd w gain, shift = b gain
template <class C>
void fold_tile(const Met<C>& met, C gain, C* scale, C* shift, int64_t n);

// u = z within +- clamp, plus skip (or null)
template <class T, class C>
void clamp_tile(const C* z, C clamp, const T* skip, C* u, int64_t n);

// du where z is within +- clamp, else 0
template <class C>
void mask_tile(const C* z, C clamp, C* du, int64_t n);

// What all channels of a sample share. kappa: the mean of G z gain over the sample; p: 1 - alpha; count: values of one
// channel.
template <class C>
struct SampleTerms {
  C gain, kappa, p;
  bool stable;
  double count;
};

// Of each channel: the accumulators (null: the statistics were constants) and the gradients of the parameters.
struct Control {
  double *epsilon_y, *epsilon_1, *dweight, *dbias;
};

// The sum over channels of w gx + b g: of means over a sample, g of G and gx of G xhat (null: a sample is one value x)
template <class T, class C>
C guard_tile(const Met<C>& met, const T* x, const C* g, const C* gx, int64_t n);

// The coefficients of dx = a G + b (x - mean) + c; the accumulators move on.
template <class T, class C>
void control_tile(const Met<C>& met, const T* x, const C* g, const C* gx, const SampleTerms<C>& sample,
                  const Control& control, C* a, C* b, C* c, int64_t n);

}  // namespace normkernels
