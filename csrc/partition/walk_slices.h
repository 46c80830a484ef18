// csrc/partition/walk_slices.h -- many slices of one network, walked along by warps of a GPU: walk_slices.cu.
#pragma once
#include "many_slices.h"
#include "system.h"

namespace pylinregion {

// Counts the regions of slices without maxima, on the device that is current. Throws std::runtime_error if CUDA does.
WalkedSlices walk_slices_cuda(const SliceSystems& systems, int64_t stages, const EngineOptions& options,
                              EngineProgress& progress);

}  // namespace pylinregion
