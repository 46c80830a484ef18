// csrc/partition/arms.h -- the arms around points, x - r v_p to x + r v_p, that were folded together (dense_fold.h):
// how many patterns there are on those of a point, and which lines change.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "many_slices.h"

namespace pylinregion {

// The systems of some points, one behind the other; what SliceSystems has, with a slope for each arm.
struct ArmSystems {
  int64_t points, arms;
  const int64_t* begin;        // [points + 1]: the first row of each
  const int64_t* stage_begin;  // [points, stages + 1]: within the point's rows, the first row of each stage
  const int32_t* line;         // [rows, and eight more]: their lines, ascending for each point
  const uint8_t* on;           // [points, pattern bytes]: which of the other lines are on, a bit for each
  const double* affine;        // [arms + 1, rows]: what each direction gives, and 1
  const double* error;         // [rows]
  const double* columns;       // as of SliceSystems
  const double* directions;    // [arms, dimensions], or [points, arms, dimensions]
  bool shared;                 // as the first says
  const double* origins;       // [points, dimensions]
  const double* radii;         // [points]
  int64_t dimensions;
};

struct ArmCounts {
  std::vector<int64_t> patterns;  // [points]: how many there are on all its arms
  std::vector<uint8_t>
      changes;  // [points, pattern bytes]: a bit for each line that is on in one of them and off in another
  Decisions decisions;
};

using CountArmsFunction = ArmCounts (*)(const ArmSystems&, int64_t stages, const std::shared_ptr<NetworkDigits>&,
                                        const Groups&, const EngineOptions&, EngineProgress&);
ArmCounts count_arms_portable(const ArmSystems&, int64_t stages, const std::shared_ptr<NetworkDigits>&, const Groups&,
                              const EngineOptions&, EngineProgress&);
ArmCounts count_arms_avx2(const ArmSystems&, int64_t stages, const std::shared_ptr<NetworkDigits>&, const Groups&,
                          const EngineOptions&, EngineProgress&);
ArmCounts count_arms_avx512(const ArmSystems&, int64_t stages, const std::shared_ptr<NetworkDigits>&, const Groups&,
                            const EngineOptions&, EngineProgress&);

}  // namespace pylinregion
