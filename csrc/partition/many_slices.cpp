// csrc/partition/many_slices.cpp -- see many_slices.h.
#include "many_slices.h"

namespace pylinregion {
namespace {

constexpr int64_t kPadding = 8;  // numbers behind a row of columns, for whole vectors

// Takes a slice's cells, and keeps which lines are on in some and off in others.
class Changes : public CellSink {
 public:
  explicit Changes(size_t pattern_bytes) : any_(pattern_bytes, 0), all_(pattern_bytes, 0xff) {}
  void add(const CellList& cells) override {
    const size_t bytes = any_.size(), n = cells.offsets.size() - 1;
    regions += static_cast<int64_t>(n);
    const size_t stride = n ? cells.patterns.size() / n : 0;
    for (size_t cell = 0; cell < n; ++cell) {
      const uint8_t* pattern = cells.patterns.data() + cell * stride;
      for (size_t i = 0; i < bytes; ++i) any_[i] |= pattern[i], all_[i] &= pattern[i];
    }
  }
  void write(uint8_t* out) const {
    for (size_t i = 0; i < any_.size(); ++i) out[i] = regions ? any_[i] ^ all_[i] : 0;
  }
  int64_t regions = 0;

 private:
  std::vector<uint8_t> any_, all_;
};
}  // namespace

SliceCounts count_slices(EnumerateFunction enumerate, const SliceSystems& systems, int64_t stages,
                         const std::shared_ptr<NetworkDigits>& digits, const Groups& groups,
                         const EngineOptions& given, EngineProgress& progress) {
  const int64_t lines = groups.lines();
  const size_t bytes = static_cast<size_t>((lines + 7) / 8);
  SliceCounts out;
  out.regions.assign(static_cast<size_t>(systems.slices), 0);
  out.changes.assign(static_cast<size_t>(systems.slices) * bytes, 0);
  std::vector<uint8_t> on(static_cast<size_t>(lines));
  const double* columns = systems.columns;
  for (int64_t i = 0; i < systems.slices && !progress.stop; ++i) {
    const int64_t first = systems.begin[i], n = systems.begin[i + 1] - first, stride = n + kPadding;
    const uint8_t* bits = systems.on + i * static_cast<int64_t>(bytes);
    for (int64_t line = 0; line < lines; ++line)
      on[static_cast<size_t>(line)] = bits[line / 8] >> (line % 8) & 1;
    const double* corners = systems.corners + i * systems.n_corners * 2;
    System system{{},
                  lines,
                  n,
                  systems.line + first,
                  on.data(),
                  systems.a + first,
                  systems.b + first,
                  systems.c + first,
                  systems.error + first,
                  nullptr,
                  corners,
                  systems.n_corners,
                  &groups};
    const int64_t* stage_begin = systems.stage_begin + i * (stages + 1);
    for (int64_t l = 0; l < stages; ++l) {
      const int64_t begin = stage_begin[l], end = stage_begin[l + 1];
      system.stages.push_back({begin, end, n, columns + begin * stride + end, stride});
    }
    const int64_t own = systems.shared ? 0 : i * systems.dimensions;
    const ExactSlice slice{systems.dimensions, systems.u + own,  systems.v + own, systems.origin + i * systems.dimensions,
                           corners,            systems.n_corners};
    Changes changes(bytes);
    EngineOptions options = given;
    options.cells = &changes;
    const EngineResult found = enumerate(system, options, ExactRows(digits, slice, groups), progress);
    out.decisions.filter += found.decisions.filter;
    out.decisions.exact += found.decisions.exact;
    out.decisions.zeros += found.decisions.zeros;
    out.decisions.folds += found.decisions.folds;
    out.regions[static_cast<size_t>(i)] = changes.regions;
    changes.write(out.changes.data() + static_cast<size_t>(i) * bytes);
    columns += n * stride;
  }
  return out;
}

}  // namespace pylinregion
