// csrc/partition/walk_slices.h -- slices of one network, walked along by warps of a GPU: walk_slices.cu.
#pragma once
#include <vector>

#include "system.h"
#include "walked_slices.h"

namespace pylinregion {

// Counts the regions of slices, and finds their cells if options.cells (which takes none here), on the device that is
// current; `progress` has those that were counted. The lines of a system are its rows, and two more if it has both
// `zero` and `on`; all have as many stages and corners, and borders and norms, or none. A slice that has more than
// options.max_regions, or takes more than options.max_bytes, is left to the CPU. Throws std::runtime_error if CUDA
// does.
WalkedSlices walk_slices_cuda(const std::vector<System>& systems, const EngineOptions& options,
                              EngineProgress& progress, const Ask& ask);

}  // namespace pylinregion
