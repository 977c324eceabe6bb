// From tensors to the sweeps of the channel family, backward.
#pragma once

#include "cpu/channels/channels_last_backward.h"
#include "cpu/channels/norm.h"
#include "cpu/channels/one_position_backward.h"
#include "cpu/channels/planes_backward.h"

namespace normkernels {

// With rstd given
template <class T>
void sweep_backward(Backward<T> a, bool last) {
  if (groups_are_rows(a)) return backward_groups(a);
  if (const int64_t run = tiny_planes(a.of.grid, last); run && (run < kFewLanes || !small(a))) {
    a.of.grid = one_image(a.of.grid);
    return backward_channels_last(a, run);
  }
  lies_last(a.of.grid, last) ? backward_channels_last(a) : backward_planes(a);
}

template <class T>
void backward(const Backward<T>& a, bool last) {
  a.of.find_rstd(0, a.of.grid.B * a.of.grid.G);
  sweep_backward(a, last);
}

}  // namespace normkernels
