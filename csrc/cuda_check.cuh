// csrc/cuda_check.cuh -- CUDA calls that fail throw, with the place, the call and CUDA's own message.
#pragma once
#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

#define PLR_CUDA_CHECK(call)                                                                              \
  do {                                                                                                    \
    const cudaError_t plr_status = (call);                                                                \
    if (plr_status != cudaSuccess)                                                                        \
      throw std::runtime_error(std::string(__FILE__) + ":" + std::to_string(__LINE__) + ": " #call ": " + \
                               cudaGetErrorString(plr_status));                                           \
  } while (0)
