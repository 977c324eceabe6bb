// normkernels._C: importing it registers the ops of this binary; build_info() says how it was built, and
// parallel_regions() how often its kernels shared work among threads.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <map>
#include <string>

#include "cpu/base/work.h"

#define NK_STRING(x) #x
#define NK_TEXT(x) NK_STRING(x)

PYBIND11_MODULE(_C, m) {
  m.doc() = "Native kernels of normkernels; importing this module registers torch.ops.normkernels_C";
  m.def("build_info", [] {
    return std::map<std::string, std::string>{
#if defined(__VERSION__)
        {"compiler", __VERSION__},
#endif
#if defined(NORMKERNELS_WITH_CUDA)
        {"cuda", NK_TEXT(NORMKERNELS_CUDA_ARCHS)},
#else
        {"cuda", "not built: " NK_TEXT(NORMKERNELS_WITHOUT_CUDA)},
#endif
        {"built with torch", NK_TEXT(NORMKERNELS_TORCH_VERSION)},
        {"stable ABI target", NK_TEXT(TORCH_TARGET_VERSION)},
    };
  });
  m.def("parallel_regions", [] { return normkernels::parallel_regions.load(); });
}
