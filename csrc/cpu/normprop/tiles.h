// Loops of NormProp's epilogue. K: a coefficient for the whole tile (Same<C>), or one for each column (const C*).
#pragma once

#include "cpu/channels/tiles.h"

namespace normkernels {

// Where t = act's argument is cut off and has kinks, and what bounds y between them.
template <class C>
struct Bounds {
  C floor, ceiling, kink_low, kink_high, low, high;
};

// y = t * (t > 0 ? up : down) + shift, t = u + bias within [floor, ceiling]
template <class K, class P>
struct Bend {
  K bias;
  P up, down, shift;
};

// y may be u.
template <class T, class K, class P>
void bend_tile(const T* u, const Bend<K, P>& k, const Bounds<compute_t<T>>& bounds, T* y, int64_t n);

// du = dy * (low <= y <= high ? inside : outside)
template <class C>
struct Interval {
  C low, high, inside, outside;
};

// z = u + bias: du = dy * (z > 0 ? up : down), and the slope gets dy * (of_one + z * (z > 0 ? of_up : of_down)).
template <class K>
struct Prelu {
  K bias, up, down, of_one, of_up, of_down;
};

// Each adds what it finds, before rounding, to the sums of du and of what the slope gets: one value where K is Same,
// else one for each column.
template <class K, class T>
void interval_gradient(const T* dy, const T* y, const Interval<compute_t<T>>& k, T* du, Pair<compute_t<T>*> sums,
                       int64_t n);
template <class K, class T>
void prelu_gradient(const T* dy, const T* u, const Prelu<K>& k, T* du, Pair<compute_t<T>*> sums, int64_t n);
// du = tile * scale
template <class K, class T>
void scaled_gradient(const compute_t<T>* tile, compute_t<T> scale, T* du, Pair<compute_t<T>*> sums, int64_t n);

}  // namespace normkernels
