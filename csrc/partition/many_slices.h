// csrc/partition/many_slices.h -- many slices of one network, one after another: each has few lines that may cross it,
// and what does not depend on the slice is made once.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "exact_rows.h"
#include "groups.h"
#include "system.h"
#include "walked_slices.h"

namespace pylinregion {

constexpr int64_t kColumnPadding = 8;  // numbers behind a row of columns, for whole vectors

// The systems of some slices, one behind the other. All polygons have as many corners.
struct SliceSystems {
  int64_t slices;
  const int64_t* begin;             // [slices + 1]: the first row of each
  const int64_t* stage_begin;       // [slices, stages + 1]: within the slice's rows, the first row of each stage
  const int32_t* line;              // [rows, and eight more]: their lines, ascending in each slice
  const uint8_t* on;                // [slices, pattern bytes]: which of the other lines are on, a bit for each
  const double *a, *b, *c, *error;  // [rows]
  // Of a slice with n rows [n, n + kColumnPadding]: what each row gives to those after it, 0 elsewhere; one slice
  // behind the other.
  const double* columns;
  const double* norms;           // see System; of one slice alone, or null
  const double *u, *v, *origin;  // [slices, dimensions]; of u and v, as `shared` says, those of the first for all
  bool shared;
  const double* corners;  // [slices, n_corners, 2]
  int64_t n_corners, dimensions;
  const double* borders;  // [slices, n_corners, 2, 2] or null: see System
};

// What is found of each slice.
struct SliceCounts {
  std::vector<int64_t> regions;    // [slices, stages]: after each stage
  std::vector<uint8_t> changes;    // [slices, pattern bytes]: a bit for each line that is not on one side all over it
  std::vector<uint8_t> somewhere;  // likewise, for each line that is on in some cell
  std::vector<int64_t> decisions;  // [slices, 4]: filter, exact, zeros, folds
  // If options.pieces: [slices, stages, n_corners], and twice [slices, n_corners]; see EngineResult.
  std::vector<int64_t> pieces, zero_along, zero_at;
  int64_t stopped_at = -1;  // the slice that has more than options.max_regions; -1: none
};

// What is found on segments, one after another: on slices with two corners.
struct SegmentBreakpoints {
  std::vector<int64_t> breakpoints;    // [segments]: how many each has
  std::vector<double> t;               // [breakpoints]: s there, from the first corner to the second
  std::vector<int64_t> change_counts;  // [breakpoints]
  std::vector<int32_t> changes;        // the lines that change at each, ascending
  std::vector<uint8_t> starts;         // [segments, pattern bytes]: a bit for each line that is on in the first piece
  Decisions decisions;
};

// Which lines are on, a byte for each, from the bits of a slice.
std::vector<uint8_t> settled_on(const SliceSystems& systems, int64_t slice, int64_t lines);

// The systems of all of them, as a device takes them (walk_slices.h), with what they point to.
class NumberedSystems {
 public:
  NumberedSystems(const SliceSystems& systems, int64_t stages, const Groups& groups);
  NumberedSystems(const NumberedSystems&) = delete;  // its parts point to each other
  const std::vector<System>& all() const { return all_; }

 private:
  std::vector<StageView> views_;
  std::vector<int64_t> zero_;
  std::vector<uint8_t> on_;
  std::vector<System> all_;
};

// What integers say of them: see Ask.
class IntegersOfSlices {
 public:
  IntegersOfSlices(const SliceSystems& systems, const std::shared_ptr<NetworkDigits>& digits, const Groups& groups)
      : systems_(systems), digits_(digits), groups_(groups) {}
  Said say(int64_t slice, const Question& question, const uint8_t* on);

 private:
  const SliceSystems& systems_;
  const std::shared_ptr<NetworkDigits>& digits_;
  const Groups& groups_;
  int64_t slice_ = -1;  // that was asked for last
  std::unique_ptr<ExactRows> exact_;
  std::vector<uint8_t> on_;  // [lines]
};

// The system of a slice. Of it: columns, where its own begin; on, what settled_on gave; and the network's groups. Its
// stages are kept in `views`.
System system_of(const SliceSystems& systems, int64_t slice, int64_t stages, const double* columns,
                 const std::vector<uint8_t>& on, const Groups& groups, std::vector<StageView>& views);
ExactSlice exact_slice(const SliceSystems& systems, int64_t slice);

// Counts each slice's regions, and keeps no cells; `progress` has those of all, and stops it. walked: null, or what a
// device has found of these slices, which is taken as it is where it is done, and is in `progress`.
SliceCounts count_slices(EnumerateFunction enumerate, const SliceSystems& systems, int64_t stages,
                         const std::shared_ptr<NetworkDigits>& digits, const Groups& groups,
                         const EngineOptions& options, EngineProgress& progress, WalkedSlices* walked);

// Where the pieces of each segment meet. walked: as for count_slices, with cells.
SegmentBreakpoints trace_slices(EnumerateFunction enumerate, const SliceSystems& systems, int64_t stages,
                                const std::shared_ptr<NetworkDigits>& digits, const Groups& groups,
                                const EngineOptions& options, EngineProgress& progress, WalkedSlices* walked);

}  // namespace pylinregion
