// csrc/partition/walk_slices.h -- many slices of one network, walked along by warps of a GPU: walk_slices.cu.
#pragma once
#include <functional>

#include "many_slices.h"
#include "system.h"

namespace pylinregion {

// As ExactRows::sign_at, of a slice whose lines are its rows, numbered from 0: (slice, i, j, k, on), with on[row].
using AskIntegers = std::function<int(int64_t, int64_t, int64_t, int64_t, const uint8_t*)>;

// Counts the regions of slices without maxima, on the device that is current. Throws std::runtime_error if CUDA does.
WalkedSlices walk_slices_cuda(const SliceSystems& systems, int64_t stages, const EngineOptions& options,
                              EngineProgress& progress, const AskIntegers& ask);

}  // namespace pylinregion
