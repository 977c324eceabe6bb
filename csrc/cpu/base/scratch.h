// Room that a kernel needs for a moment: a small call spends more on asking for it than on its arithmetic.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <new>
#include <vector>

namespace normkernels {

// The blocks that this thread gave back, by their sizes (powers of two), for whoever asks next.
class Blocks {
 public:
  static Blocks& mine() {
    thread_local Blocks blocks;
    return blocks;
  }
  void* take(size_t bytes) {
    const int size = class_of(bytes);
    if (size >= kClasses) return ::operator new(bytes);
    auto& free = free_[size];
    return free.count ? free.blocks[--free.count] : ::operator new(size_t{1} << size);
  }
  void give(void* block, size_t bytes) {
    const int size = class_of(bytes);
    if (size >= kClasses || free_[size].count == kKept) return ::operator delete(block);
    free_[size].blocks[free_[size].count++] = block;
  }
  Blocks(const Blocks&) = delete;
  ~Blocks() {
    for (auto& free : free_)
      while (free.count) ::operator delete(free.blocks[--free.count]);
  }

 private:
  static constexpr int kClasses = 19, kKept = 8;  // up to 256 KiB each
  struct Free {
    std::array<void*, kKept> blocks;
    int count = 0;
  };
  Blocks() = default;
  static int class_of(size_t bytes) { return std::bit_width(bytes < 64 ? size_t{63} : bytes - 1); }

  std::array<Free, kClasses> free_;
};

template <class T>
struct Recycled {
  using value_type = T;
  Recycled() = default;
  template <class U>
  Recycled(const Recycled<U>&) {}
  T* allocate(size_t n) { return static_cast<T*>(Blocks::mine().take(n * sizeof(T))); }
  void deallocate(T* block, size_t n) { Blocks::mine().give(block, n * sizeof(T)); }
  friend bool operator==(const Recycled&, const Recycled&) { return true; }
};

template <class T>
using Scratch = std::vector<T, Recycled<T>>;

}  // namespace normkernels
