// A CUDA runtime for one process on a machine without a GPU: memory is the host's, and whoever asked for launches runs
// them. Linked with the kernels' host code, it answers for what that calls, of CUDA and of a torch built with it.
#include <cuda_runtime_api.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>

#include <cstdlib>
#include <cstring>
#include <string>
#include <unordered_map>

namespace {

// Runs a launch; what is not zero is an error of CUDA.
using Launch = int (*)(const char* kernel, const unsigned* grid, const unsigned* block, const unsigned* cluster,
                       size_t shared, void** arguments);
// Is told of memory that was filled.
using Filled = void (*)(void* data, size_t bytes);

struct Device {
  int multiprocessors, blocks, l2_bytes;  // blocks: of any kernel that a multiprocessor holds
  int capability;                         // the major one
  int beside;                             // blocks of any kernel that all clusters have room for; 0: an error
  Launch launch;
  Filled filled;
} device{};

int which = 0;  // what is known of a device does not hold for the next
cudaError_t last = cudaSuccess;

std::unordered_map<const void*, std::string>& names() {  // of kernels; static initialisers of other files fill it
  static std::unordered_map<const void*, std::string> found;
  return found;
}

// How many bytes of shared memory a launch may give a kernel.
std::unordered_map<const void*, size_t>& rooms() {
  static std::unordered_map<const void*, size_t> found;
  return found;
}
bool has_room(const void* host, size_t shared) {
  constexpr size_t kAny = 48 * 1024;
  return shared <= (rooms().contains(host) ? rooms()[host] : kAny);
}

// Blocks of a cluster: {1, 1, 1} where the launch says nothing of them.
cudaError_t run(const void* host, dim3 grid, dim3 block, dim3 cluster, size_t shared, void** arguments) {
  if (!has_room(host, shared)) return last = cudaErrorInvalidValue;
  const unsigned programs[] = {grid.x, grid.y, grid.z}, threads[] = {block.x, block.y, block.z};
  const unsigned together[] = {cluster.x, cluster.y, cluster.z};
  const int result = device.launch(names().at(host).c_str(), programs, threads, together, shared, arguments);
  if (result != 0) last = cudaError_t(result);
  return cudaError_t(result);
}

}  // namespace

extern "C" {

__attribute__((visibility("default"))) void fake_device(int multiprocessors, int blocks, int l2_bytes, int capability,
                                                        int beside, Launch launch, Filled filled) {
  device = {multiprocessors, blocks, l2_bytes, capability, beside, launch, filled};
  ++which;
  last = cudaSuccess;
}

// ---- what nvcc adds to host code ----

void** __cudaRegisterFatBinary(void*) { return nullptr; }
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
void __cudaRegisterVar(void**, char*, char*, const char*, int, size_t, int, int) {}
void __cudaRegisterFunction(void**, const char* host, char*, const char* name, int, uint3*, uint3*, dim3*, dim3*,
                            int*) {
  names()[host] = name;
}
cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* host) {
  *kernel = (cudaKernel_t)host;
  return cudaSuccess;
}
cudaError_t __cudaPopCallConfiguration(dim3*, dim3*, size_t*, void*) { return cudaErrorNotSupported; }
cudaError_t __cudaLaunchKernel(cudaKernel_t, dim3, dim3, void**, size_t, cudaStream_t) { return cudaErrorNotSupported; }

// ---- the runtime ----

cudaError_t cudaLaunchKernel(const void* host, dim3 grid, dim3 block, void** arguments, size_t shared, cudaStream_t) {
  return run(host, grid, block, dim3(1, 1, 1), shared, arguments);
}
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* launch, const void* host, void** arguments) {
  dim3 cluster(1, 1, 1);
  for (unsigned i = 0; i < launch->numAttrs; ++i) {
    const auto& [x, y, z] = launch->attrs[i].val.clusterDim;
    if (launch->attrs[i].id == cudaLaunchAttributeClusterDimension) cluster = dim3(x, y, z);
  }
  return run(host, launch->gridDim, launch->blockDim, cluster, launch->dynamicSmemBytes, arguments);
}
cudaError_t cudaGetLastError() {
  const cudaError_t error = last;
  last = cudaSuccess;
  return error;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount:
      *value = device.multiprocessors;
      return cudaSuccess;
    case cudaDevAttrL2CacheSize:
      *value = device.l2_bytes;
      return cudaSuccess;
    default:
      return cudaErrorInvalidValue;
  }
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, const void*, int, size_t, unsigned) {
  *blocks = device.blocks;
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* index) {
  *index = which;
  return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveClusters(int* clusters, const void* host, const cudaLaunchConfig_t* launch) {
  if (!has_room(host, launch->dynamicSmemBytes)) return last = cudaErrorInvalidValue;
  *clusters = device.beside / launch->attrs->val.clusterDim.x;
  return device.beside ? cudaSuccess : last = cudaErrorInvalidClusterSize;
}
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* found, const void*) {
  *found = {}, found->ptxVersion = 10 * device.capability;  // of the code that it would run
  return cudaSuccess;
}
cudaError_t cudaFuncSetAttribute(const void* host, cudaFuncAttribute attribute, int value) {
  if (attribute == cudaFuncAttributeMaxDynamicSharedMemorySize) rooms()[host] = value;
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* data, int value, size_t bytes, cudaStream_t) {
  std::memset(data, value, bytes);
  device.filled(data, bytes);
  return cudaSuccess;
}

// ---- of torch: tensors are on the GPU, but for the sizes of a sequence's steps ----

AOTITorchError aoti_torch_get_device_type(AtenTensorHandle tensor, int32_t* type) {
  int32_t dtype = 0;
  const AOTITorchError error = aoti_torch_get_dtype(tensor, &dtype);
  *type = dtype == aoti_torch_dtype_int64() ? aoti_torch_device_type_cpu() : aoti_torch_device_type_cuda();
  return error;
}
AOTITorchError aoti_torch_get_device_index(AtenTensorHandle, int32_t* index) {
  *index = 0;
  return AOTI_TORCH_SUCCESS;
}
AOTITorchError aoti_torch_create_device_guard(int32_t, DeviceGuardHandle* guard) {
  *guard = nullptr;
  return AOTI_TORCH_SUCCESS;
}
AOTITorchError aoti_torch_delete_device_guard(DeviceGuardHandle) { return AOTI_TORCH_SUCCESS; }
AOTITorchError aoti_torch_get_current_cuda_stream(int32_t, void** stream) {
  *stream = nullptr;
  return AOTI_TORCH_SUCCESS;
}
AOTITorchError torch_c10_cuda_check_msg(int32_t error, const char*, const char*, uint32_t, bool, char** message) {
  *message = error == 0 ? nullptr : strdup(("CUDA error " + std::to_string(error)).c_str());
  return AOTI_TORCH_SUCCESS;
}
void torch_c10_cuda_free_error_msg(char* message) { std::free(message); }
}
