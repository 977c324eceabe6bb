// A kernel as torch's dispatcher calls it. TORCH_BOX alone loses a string at every call of an op that takes one: torch
// up to 2.13 copies it twice and frees one of the copies (pytorch/pytorch#191340). That is 48 bytes, but where they lie
// between two results the heap grows by a result a call.
#pragma once

#include <torch/csrc/stable/library.h>

#include <string>
#include <type_traits>

namespace normkernels {

// A string as it comes, to be freed by whoever reads it; copied as the bits that it is
struct Text {
  StringHandle handle;
};

inline std::string given(const Text& text) {
  size_t length = 0;
  const char* letters = nullptr;
  TORCH_ERROR_CODE_CHECK(torch_string_length(text.handle, &length));
  TORCH_ERROR_CODE_CHECK(torch_string_c_str(text.handle, &letters));
  std::string copy(letters, length);
  TORCH_ERROR_CODE_CHECK(torch_delete_string(text.handle));
  return copy;
}
template <class T>
const T& given(const T& argument) {
  return argument;
}

template <auto* kernel, class = decltype(kernel)>
struct Boxed;
template <auto* kernel, class... A>
struct Boxed<kernel, void (*)(A...)> {
  template <class T>
  using Comes = std::conditional_t<std::is_same_v<std::remove_cvref_t<T>, std::string>, Text, std::remove_cvref_t<T>>;

  static void call(const Comes<A>&... arguments) { kernel(given(arguments)...); }
};

}  // namespace normkernels

#define NK_BOX(...) TORCH_BOX((&normkernels::Boxed<__VA_ARGS__>::call))
