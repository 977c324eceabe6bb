// What the CUDA kernels are given on the CPU.
#pragma once

#include <limits>
#include <vector>

#include "cuda/base/tiles.cuh"
#include "reference.h"

namespace normkernels::cuda {

// Values of T at a chosen alignment.
template <class T>
struct Buffer {
  std::vector<T> storage;
  T* data;

  Buffer(const std::vector<double>& values, bool aligned = true) : storage(values.size() + 32), data(storage.data()) {
    while (reinterpret_cast<uintptr_t>(data) % 16 != 0) ++data;
    data += aligned ? 0 : 1;
    for (size_t i = 0; i < values.size(); ++i) data[i] = narrow<T>(acc_t<T>(values[i]));
  }
  Buffer(int64_t size, bool aligned = true)
      : Buffer(std::vector<double>(size, std::numeric_limits<double>::quiet_NaN()), aligned) {}
  Real operator[](int64_t i) const { return widen(data[i]); }
};

}  // namespace normkernels::cuda
