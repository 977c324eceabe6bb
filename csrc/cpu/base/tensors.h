// From stable-ABI tensors to pointers: dtype dispatch, parameters in the compute type.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <optional>
#include <string>
#include <type_traits>

#include "boxed.h"
#include "checks/call.h"
#include "cpu/base/tiles.h"
#include "cpu/base/work.h"

namespace normkernels {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;
inline const OptionalTensor kAbsent;

// Call f with a value of the element type of t.
template <class F>
void dispatch(const Tensor& t, const char* op, const F& f) {
  const int32_t dtype = check::dtype(t);
  if (dtype == check::kFloat32) return f(float());
  if (dtype == check::kBFloat16) return f(bfloat16());
  if (dtype == check::kFloat16) return f(float16());
  STD_TORCH_CHECK(dtype == check::kFloat64, op, ": unsupported dtype");
  f(double());
}

template <class T>
T* pointer(const Tensor& t) {
  return static_cast<T*>(t.data_ptr());
}
template <class T>
T* pointer(const OptionalTensor& t) {
  return t ? static_cast<T*>(t->data_ptr()) : nullptr;
}

inline Activation activation(const std::string& name) {
  Activation found = Activation::identity;
  STD_TORCH_CHECK(find_activation(name, found), "normkernels: activation must be a name of ACTIVATIONS, got '", name,
                  "'");
  return found;
}

// A parameter (N,) plus offset in the compute type: the tensor's own memory where nothing has to
// change, else a copy.
template <class C>
class Parameter {
 public:
  Parameter(const OptionalTensor& t, double offset) {
    if (!t) return;
    dispatch(*t, "parameter", [&](auto element) {
      using W = decltype(element);
      const W* source = pointer<W>(*t);
      if constexpr (std::is_same_v<W, C>) {
        data_ = source;
        if (offset == 0) return;
      }
      if constexpr (std::is_same_v<compute_t<W>, C>) {
        copy_.resize(t->numel());
        load_tile(source, copy_.data(), copy_.size());
        for (C& value : copy_) value += static_cast<C>(offset);
        data_ = copy_.data();
      }
    });
  }
  const C* data() const { return data_; }

 private:
  Scratch<C> copy_;
  const C* data_ = nullptr;
};

// What follows the statistics, as an op is given it.
struct GivenAffine {
  const OptionalTensor &weight, &bias;
  double offset;  // of weight
  const std::string& activation;
  double slope;
};

// Call f with a value of the element type of x and, in the compute type, what follows the statistics.
template <class F>
void with_affine(const Tensor& x, const char* op, const GivenAffine& given, const F& f) {
  dispatch(x, op, [&](auto element) {
    using C = compute_t<decltype(element)>;
    const Parameter<C> weight(given.weight, given.offset), bias(given.bias, 0);
    f(element, Affine<C>{.weight = weight.data(),
                         .bias = bias.data(),
                         .activation = activation(given.activation),
                         .slope = static_cast<C>(given.slope)});
  });
}

// From the compute type, if it is wanted, to a tensor of any dtype.
template <class C>
void store_values(const Scratch<C>& values, const OptionalTensor& t) {
  if (!t) return;
  dispatch(*t, "values", [&](auto element) {
    using W = decltype(element);
    W* const to = pointer<W>(*t);
    for (size_t i = 0; i < values.size(); i++) to[i] = store<W>(static_cast<compute_t<W>>(values[i]));
  });
}

}  // namespace normkernels

// The CPU kernel of an op that csrc/schemas.cpp defines.
#define NK_CPU(op, kernel) \
  STABLE_TORCH_LIBRARY_IMPL(normkernels_C, CPU, m) { m.impl(#op, NK_BOX(&kernel)); }
