// Rows of one tile, and shorter ones: blocks of them in one loop each, for a call for each step of each row costs more
// than the row does.
#pragma once

#include <cstdint>

#include "cpu/base/tiles.h"
#include "cpu/base/twos.h"

namespace normkernels {

template <class T>
struct RowsForward;
template <class T>
struct RowsBackward;

// Whether rows are taken so, those of two tiles too where most says so.
inline bool narrow(int64_t N, int64_t most = kTile) {
#if defined(NK_SHUFFLES)
  return N >= kFewLanes && N <= most;
#else
  return false;
#endif
}

// Whether rows are shorter still: then many of them are taken side by side.
inline bool short_rows(int64_t N) { return N < kFewLanes; }

// y of the rows [begin, end)
template <class T>
void narrow_forward(const RowsForward<T>& a, int64_t begin, int64_t end);
template <class T>
void short_forward(const RowsForward<T>& a, int64_t begin, int64_t end);

// dx of the rows [begin, end) of a block, or of all, added up in its line of the tables
template <class T>
void narrow_backward(const RowsBackward<T>& a, int64_t block, int64_t begin, int64_t end);
template <class T>
void short_backward(const RowsBackward<T>& a, int64_t block);

// Rows of whole lines, with no activation or one that is part of the loop, are taken in the same loops when they are
// longer, up to what threads would share. Which loops is a matter of a row's length alone, for they add up in different
// orders.
constexpr int64_t kLongRow = 32 * kTile;
inline int64_t longest(int64_t N) { return N % kFewLanes == 0 ? kLongRow : 2 * kTile; }

// What of such a row is summed at once, 64 elements to a lane of a sum, and the size of a buffer
constexpr int64_t kPairedRow = 4 * kTile;

// Whether rows of 16 bits are taken two vectors at a time.
inline bool paired(int64_t N, bool plain) {
#if defined(NK_TWOS)
  return kTwos && N % kPaired == 0 && N <= (plain ? kLongRow : kPairedRow);
#else
  return false;
#endif
}

// Whether T is converted by one instruction.
template <class T>
bool converts() {
#if defined(NK_TWOS)
  return std::is_same_v<T, float16> && kTwos;
#else
  return false;
#endif
}

// y of all rows, dx of all rows; affine and the tables as they were given
template <class T>
void paired_forward(const RowsForward<T>& a);
template <class T>
void paired_backward(const RowsBackward<T>& a);

// Whether every few values of out's rows are a whole line, which can be written past the caches as it is.
template <class T>
bool whole_lines(bool nontemporal, int64_t N, const T* out) {
#if defined(NK_TWOS)
  return std::is_same_v<T, float> && kTwos && nontemporal && N % kFewLanes == 0 && on_line(out);
#else
  return false;
#endif
}

#if defined(NK_SHUFFLES)
// xhat weight + bias of a few values from column j on; w and b, or null, are pointers of the loop's own, so that they
// are read once.
template <class V, class T, class C>
NK_INLINE V normalised(const T* x, const KnownRow<C>& row, const C* w, const C* b, int64_t j) {
  V v = (take<V>(x + j) - row.mean) * row.rstd + row.shift;
  if (w) v = rounded(v * take<V>(w + j));
  if (b) v += take<V>(b + j);
  return v;
}
#endif

}  // namespace normkernels
