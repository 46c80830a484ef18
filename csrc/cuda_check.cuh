// csrc/cuda_check.cuh -- CUDA calls that fail throw, with the place, the call and CUDA's own message; a launch, or what
// ran since, with the kernel's name. Later calls do not hear of it again, if they can go on.
#pragma once
#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

#define PLR_CUDA_CHECK(call) PLR_CUDA_CHECK_AS(call, #call)
#define PLR_CUDA_CHECK_KERNEL(kernel, call) PLR_CUDA_CHECK_AS(call, "kernel " #kernel)
#define PLR_CUDA_CHECK_AS(call, what)                                                                    \
  do {                                                                                                   \
    const cudaError_t plr_status = (call);                                                               \
    if (plr_status != cudaSuccess) {                                                                     \
      static_cast<void>(cudaGetLastError());                                                             \
      throw std::runtime_error(std::string(__FILE__) + ":" + std::to_string(__LINE__) + ": " what ": " + \
                               cudaGetErrorString(plr_status));                                          \
    }                                                                                                    \
  } while (0)
