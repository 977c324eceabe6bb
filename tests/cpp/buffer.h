// What the CUDA kernels are given on the CPU.
#pragma once

#include <limits>
#include <vector>

#include "cuda/base/affine.cuh"
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

// A parameter in T or in float, or absent.
template <class T>
struct Numbers {
  Buffer<T> own;
  Buffer<float> wide;
  bool present, is_float;

  Numbers(const std::vector<double>& values, bool present, bool is_float, bool aligned = true)
      : own(values, aligned), wide(values, aligned), present(present), is_float(is_float) {}
  void* data() const { return !present ? nullptr : is_float ? static_cast<void*>(wide.data) : own.data; }
  Parameter parameter() const { return {data(), is_float}; }
  Real operator[](int64_t i) const { return is_float ? wide[i] : own[i]; }
  Real at(int64_t i, Real absent) const { return present ? (*this)[i] : absent; }
};

// Workspaces that live as long as this.
template <class T>
struct Room {
  std::vector<std::vector<acc_t<T>>> all;
  auto operator()(int64_t n) {
    auto& room = all.emplace_back(n + 4, std::numeric_limits<acc_t<T>>::quiet_NaN());
    acc_t<T>* data = room.data();
    while (reinterpret_cast<uintptr_t>(data) % 16 != 0) ++data;
    return data;
  }
};

template <class T>
constexpr double kUlp = sizeof(T) == 2   ? 0x1p-8
                        : sizeof(T) == 4 ? 0x1p-23
                                         : 0x1p-52;

}  // namespace normkernels::cuda
