// From torch's tensors to the kernels' plain structs, through torch's stable ABI only.
#pragma once

#ifndef USE_CUDA
#define USE_CUDA  // declares aoti_torch_get_current_cuda_stream
#endif
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/macros.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <initializer_list>
#include <optional>
#include <string>
#include <vector>

#include "boxed.h"
#include "cuda/base/affine.cuh"
#include "cuda/base/line_sums.cuh"

namespace normkernels::cuda {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Optional = std::optional<Tensor>;

// What kernels on x in T need of its device, current while this lives; and their workspaces, which live as long.
template <typename T>
class Session {
 public:
  explicit Session(const Tensor& x) : x_(on_device(x)), guard_(x.get_device_index()) {
    const int index = x.get_device_index();
    STD_CUDA_CHECK(cudaDeviceGetAttribute(&device.multiprocessors, cudaDevAttrMultiProcessorCount, index));
    STD_CUDA_CHECK(cudaDeviceGetAttribute(&device.l2_bytes, cudaDevAttrL2CacheSize, index));
    void* stream = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(index, &stream));
    device.stream = static_cast<cudaStream_t>(stream);
  }

  // a workspace of n accumulators of T's arithmetic
  acc_t<T>* room(int64_t n) {
    const ScalarType dtype = std::is_same_v<T, double> ? ScalarType::Double : ScalarType::Float;
    buffers_.push_back(torch::stable::new_empty(x_, {n}, dtype));
    return static_cast<acc_t<T>*>(buffers_.back().mutable_data_ptr());
  }
  // room, as what launches a kernel takes it
  auto workspace() {
    return [this](int64_t n) { return room(n); };
  }

  Device device;

 private:
  static const Tensor& on_device(const Tensor& x) {
    STD_TORCH_CHECK(x.is_cuda(), "normkernels: all tensors but batch_sizes must be on one device");
    return x;
  }

  Tensor x_;
  torch::stable::accelerator::DeviceGuard guard_;
  std::vector<Tensor> buffers_;
};

template <typename T>
const T* input(const Tensor& t) {
  return static_cast<const T*>(t.const_data_ptr());
}
template <typename T>
const T* input(const Optional& t) {
  return t ? static_cast<const T*>(t->const_data_ptr()) : nullptr;
}
template <typename T>
T* output(const Tensor& t) {
  return static_cast<T*>(t.mutable_data_ptr());
}
template <typename T>
T* output(const Optional& t) {
  return t ? static_cast<T*>(t->mutable_data_ptr()) : nullptr;
}

inline bool is_float(const Optional& t) { return t && t->scalar_type() == ScalarType::Float; }
inline Parameter parameter(const Optional& t) { return {input<void>(t), is_float(t)}; }
inline int64_t row_stride(const Optional& t) { return t ? t->stride(0) : 0; }

// (..., N) as (M, N): a copy where the rows are not one distance apart.
inline Tensor as_rows(const Tensor& t) {
  return t.dim() == 2 ? t : torch::stable::reshape(t, {-1, t.size(t.dim() - 1)});
}
inline Optional as_rows(const Optional& t) { return t ? Optional(as_rows(*t)) : t; }

template <typename T>
Affine<T> affine(const Optional& weight, const Optional& bias, double offset, const std::string& name, double slope) {
  const Activation activation = find_activation(name.c_str());
  STD_TORCH_CHECK(activation != Activation::kUnknown, "normkernels: activation must be a name of ACTIVATIONS, got '",
                  name, "'");
  return {parameter(weight), parameter(bias), acc_t<T>(offset), acc_t<T>(slope), activation};
}

template <typename T>
LineSums<T> line_sums_of(const Optional& dweight, const Optional& dbias, int64_t N) {
  return {nullptr, output<void>(dweight), output<void>(dbias), is_float(dweight), is_float(dbias), 0, N};
}

// Whether 128-bit accesses fit: the packs' dim, every row stride and every pointer.
template <typename T>
bool packed(std::initializer_list<int64_t> lengths, std::initializer_list<const void*> pointers) {
  for (const int64_t length : lengths)
    if (length % kPack<T> != 0) return false;
  for (const void* pointer : pointers)
    if (reinterpret_cast<uintptr_t>(pointer) % 16 != 0) return false;
  return true;
}

// run(session) launches kernels; throws where one of them could not be launched.
template <typename T, typename Run>
void run_on(const Tensor& x, Run run) {
  Session<T> session(x);
  run(session);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

// The same in x's dtype.
template <typename Run>
void dispatch(const Tensor& x, Run run) {
  switch (x.scalar_type()) {
    case ScalarType::Double:
      return run_on<double>(x, run);
    case ScalarType::Float:
      return run_on<float>(x, run);
    case ScalarType::BFloat16:
      return run_on<__nv_bfloat16>(x, run);
    case ScalarType::Half:
      return run_on<__half>(x, run);
    default:
      STD_TORCH_CHECK(false, "normkernels: no kernel for x's dtype");
  }
}

// The two directions of a norm, as every stem has them.
template <auto* FORWARD, auto* BACKWARD>
void implement(torch::stable::detail::StableLibrary& library, const std::string& stem) {
  library.impl((stem + "_fwd").c_str(), NK_BOX(FORWARD));
  library.impl((stem + "_bwd").c_str(), NK_BOX(BACKWARD));
}

}  // namespace normkernels::cuda
