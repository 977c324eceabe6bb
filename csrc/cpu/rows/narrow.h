// Rows of one tile without an activation: blocks of them in one loop each, for a call for each step of each row costs
// more than a short row does.
#pragma once

#include <cstdint>

#include "cpu/base/tiles.h"

namespace normkernels {

template <class T>
struct RowsForward;
template <class T>
struct RowsBackward;

// Whether rows are taken so.
inline bool narrow(int64_t N, Activation activation) {
#if defined(NK_SHUFFLES)
  return N >= kFewLanes && N <= kTile && activation == Activation::identity;
#else
  return false;
#endif
}

// y of the rows [begin, end)
template <class T>
void narrow_forward(const RowsForward<T>& a, int64_t begin, int64_t end);

// dx of the rows of a block, and its line of the tables
template <class T>
void narrow_backward(const RowsBackward<T>& a, int64_t block);

}  // namespace normkernels
