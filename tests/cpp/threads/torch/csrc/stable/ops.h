// torch's parallel_for over plain threads, so that the CPU kernels run without libtorch and a sanitizer sees all of it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <thread>
#include <vector>

namespace torch::stable {

inline uint32_t get_num_threads() { return 4; }

template <class F>
void parallel_for(int64_t begin, int64_t end, int64_t grain, const F& f) {
  const int64_t share = std::max<int64_t>(grain, (end - begin + 3) / 4);
  std::vector<std::thread> threads;
  for (int64_t i = begin; i < end; i += share)
    threads.emplace_back([&f, i, end, share] { f(i, std::min(end, i + share)); });
  for (std::thread& thread : threads) thread.join();
}

}  // namespace torch::stable
