// A server without Python: runs a package of AOTInductor that holds normkernels' kernels, on the CPU.
//
//   T=$(python -c "import torch; print(torch.__path__[0])")
//   g++ -std=c++20 -I$T/include examples/serve.cpp -o serve -L$T/lib -Wl,-rpath,$T/lib -ltorch -ltorch_cpu -lc10 -ldl
//   ./serve normkernels/_C.abi3.so model.pt2 6 4 < x.bin > y.bin
//
// The numbers are the shape of the input; float32 comes in and goes out as it lies in memory.

#include <ATen/ATen.h>
#include <dlfcn.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>

#include <cstdlib>
#include <iostream>
#include <vector>

int main(int count, char** arguments) {
  if (count < 4) {
    std::cerr << "usage: serve LIBRARY PACKAGE SIZE...\n";
    return 2;
  }
  // It registers its ops as it is loaded. Its few symbols of Python are for `import` alone, hence RTLD_LAZY.
  if (!dlopen(arguments[1], RTLD_LAZY)) {
    std::cerr << dlerror() << "\n";
    return 1;
  }
  std::vector<int64_t> shape;
  for (int i = 3; i < count; ++i) shape.push_back(std::atoll(arguments[i]));
  at::Tensor x = at::empty(shape, at::kFloat);
  if (!std::cin.read(static_cast<char*>(x.data_ptr()), x.nbytes())) {
    std::cerr << "the input has fewer than " << x.nbytes() << " bytes\n";
    return 1;
  }
  torch::inductor::AOTIModelPackageLoader model(arguments[2]);
  const at::Tensor y = model.run({x})[0].contiguous();
  std::cout.write(static_cast<const char*>(y.data_ptr()), y.nbytes());
}
