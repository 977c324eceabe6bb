// What follows the statistics of every family: weight, bias and an activation.
#pragma once

#include "cpu/base/activations.h"
#include "cpu/base/tiles.h"

namespace normkernels {

// What is known of a row: xhat = (x - mean) * rstd + shift.
template <class C>
struct KnownRow {
  C mean, rstd, shift;
};

// weight + offset and bias in the compute type, null where absent, and what follows them.
template <class C>
struct Affine {
  const C *weight, *bias;
  Activation activation;
  C slope;

  TileAffine<C> at(const KnownRow<C>& row, int64_t j) const {
    return {row.mean, row.rstd, weight ? weight + j : nullptr, bias ? bias + j : nullptr, row.shift};
  }
};

}  // namespace normkernels
