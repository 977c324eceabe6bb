// The key of a call: everything that may steer the Python code that a replay leaves out.
//
// Of tensors that is how they lie and what autograd knows of them, never their values; of everything else the value.
#pragma once

#include <ATen/autocast_mode.h>
#include <ATen/core/Tensor.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <c10/util/SmallVector.h>
#include <torch/csrc/autograd/forward_grad.h>
#include <torch/csrc/autograd/grad_mode.h>

#include <bit>
#include <cstring>
#include <string>
#include <unordered_map>

namespace normkernels::replay {

using at::Tensor;
using Words = c10::SmallVector<uint64_t, 160>;

inline void add_tensor(Words& words, const Tensor& t) {
  const auto* impl = t.unsafeGetTensorImpl();
  words.push_back(impl->key_set().raw_repr());
  words.push_back(static_cast<uint64_t>(impl->dim()) << 32 | static_cast<uint64_t>(t.scalar_type()) << 16 |
                  static_cast<uint64_t>(static_cast<uint8_t>(impl->device().index())) << 8 |
                  static_cast<uint64_t>(impl->requires_grad()));
  for (const int64_t n : impl->sizes()) words.push_back(static_cast<uint64_t>(n));
  for (const int64_t n : impl->strides()) words.push_back(static_cast<uint64_t>(n));
  if (impl->device().is_cuda()) words.push_back(reinterpret_cast<uintptr_t>(t.const_data_ptr()) % 16);  // Triton asks
}

// Whether ops on t go to a kernel at once: dense, of this device's own kind, and no mode or wrapper around it.
inline bool plain(const Tensor& t) {
  static const uint64_t known =
      c10::DispatchKeySet({c10::DispatchKey::CPU, c10::DispatchKey::CUDA, c10::DispatchKey::AutogradCPU,
                           c10::DispatchKey::AutogradCUDA, c10::DispatchKey::ADInplaceOrView,
                           c10::DispatchKey::AutocastCPU, c10::DispatchKey::AutocastCUDA})
          .raw_repr();
  return (t.key_set().raw_repr() & ~known) == 0;
}

// Whether nothing looks at the ops of this thread: no transform, tracer, mode or profiler of them. Inference mode may.
// Compared with torch's own start, for what a first call meets may be a mode.
inline bool unwatched() {
  constexpr auto included = c10::default_included_set;
  constexpr auto excluded = c10::default_excluded_set | c10::autocast_dispatch_keyset;  // autocast is in the key
  const auto now = c10::impl::tls_local_dispatch_key_set();
  const auto closed = now.excluded_ | c10::autocast_dispatch_keyset;
  const bool normal = now.included_ == included && closed == excluded;
  const bool inference = now.included_ == included.remove(c10::DispatchKey::ADInplaceOrView) &&
                         closed == (excluded | c10::autograd_dispatch_keyset);
  return (normal || inference) && torch::autograd::ForwardADLevel::try_get_by_idx(0) == nullptr;
}

// What the thread is set to.
inline void add_state(Words& words, bool in_backward) {
  uint64_t state = torch::autograd::GradMode::is_enabled() ? 1 : 0;
  state |= (c10::InferenceMode::is_enabled() ? 2 : 0) | (in_backward ? 4 : 0);
  for (const auto device : {at::kCPU, at::kCUDA}) {
    if (!at::autocast::is_autocast_enabled(device)) continue;
    const auto dtype = static_cast<uint64_t>(at::autocast::get_autocast_dtype(device));
    state |= (dtype + 1) << (device == at::kCPU ? 8 : 16);
  }
  words.push_back(state);
}

struct KeyHash {
  using is_transparent = void;
  static size_t mixed(const uint64_t* words, size_t count) {
    uint64_t hash = 0x9E3779B97F4A7C15ull ^ count;
    for (size_t i = 0; i < count; i++) hash = std::rotl((hash ^ words[i]) * 0xD6E8FEB86659FD93ull, 29);
    return hash;
  }
  size_t operator()(const std::vector<uint64_t>& k) const { return mixed(k.data(), k.size()); }
  size_t operator()(const Words& k) const { return mixed(k.data(), k.size()); }
};

struct KeyEqual {
  using is_transparent = void;
  template <class A, class B>
  bool operator()(const A& a, const B& b) const {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(uint64_t)) == 0;
  }
};

template <class T>
using Table = std::unordered_map<std::vector<uint64_t>, T, KeyHash, KeyEqual>;

inline std::vector<uint64_t> owned(const Words& words) { return {words.begin(), words.end()}; }

}  // namespace normkernels::replay
