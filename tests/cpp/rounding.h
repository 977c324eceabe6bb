// What the CPU kernels are given: values rounded to their element type, and how far rounding may be off.
#pragma once

#include <type_traits>
#include <vector>

#include "cpu/base/simd.h"

namespace normkernels {

template <class T>
constexpr double kRounding = std::is_same_v<T, bfloat16> ? 0x1p-8
                             : sizeof(T) == 2            ? 0x1p-11
                             : sizeof(T) == 4            ? 0x1p-23
                                                         : 0x1p-52;

template <class T>
std::vector<T> rounded(const std::vector<double>& values) {
  std::vector<T> out;
  for (const double v : values) out.push_back(store<T>(compute_t<T>(v)));
  return out;
}

}  // namespace normkernels
