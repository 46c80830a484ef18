// csrc/partition/many_slices.cpp -- see many_slices.h.
#include "many_slices.h"

#include <algorithm>

namespace pylinregion {
namespace {

// Takes the pieces of a segment, from its first corner to its second.
class Pieces final : public CellSink {
 public:
  Pieces(const System& system, SegmentBreakpoints& out, uint8_t* start)
      : system_(system), out_(out), start_(start), before_(static_cast<size_t>((system.rows + 7) / 8)) {}

  void add(const CellList& cells) override {
    const size_t count = cells.offsets.size() - 1;
    for (size_t piece = 0; piece < count; ++piece) {
      const uint8_t* pattern = cells.patterns.data() + piece * before_.size();
      if (begun_)
        breakpoint(cells.xy[2 * static_cast<size_t>(cells.offsets[piece])], pattern);
      else
        for_rows_of(pattern, [&](size_t line) { start_[line / 8] |= static_cast<uint8_t>(1u << line % 8); });
      begun_ = true;
      std::copy_n(pattern, before_.size(), before_.begin());
    }
  }

 private:
  void breakpoint(double t, const uint8_t* pattern) {
    const size_t first = out_.changes.size();
    for_rows_of(pattern, [&](size_t line) { out_.changes.push_back(static_cast<int32_t>(line)); });
    out_.t.push_back(t);
    out_.change_counts.push_back(static_cast<int64_t>(out_.changes.size() - first));
    ++out_.breakpoints.back();
  }
  // The lines of rows that are not as they were; before the first piece all are off.
  template <class Take> void for_rows_of(const uint8_t* pattern, const Take& take) const {
    for (size_t byte = 0; byte < before_.size(); ++byte)
      for (unsigned bits = static_cast<unsigned>(pattern[byte] ^ before_[byte]); bits; bits &= bits - 1)
        take(static_cast<size_t>(system_.line[8 * byte + static_cast<size_t>(__builtin_ctz(bits))]));
  }

  const System& system_;
  SegmentBreakpoints& out_;
  uint8_t* const start_;
  std::vector<uint8_t> before_;
  bool begun_ = false;
};

}  // namespace

std::vector<uint8_t> settled_on(const SliceSystems& systems, int64_t slice, int64_t lines) {
  std::vector<uint8_t> on(static_cast<size_t>(lines));
  const uint8_t* bits = systems.on + slice * ((lines + 7) / 8);
  for (int64_t line = 0; line < lines; ++line) on[static_cast<size_t>(line)] = bits[line / 8] >> (line % 8) & 1;
  return on;
}

namespace {
const double* borders_of(const SliceSystems& systems, int64_t slice) {
  return systems.borders ? systems.borders + slice * systems.n_corners * 4 : nullptr;
}
void append(std::vector<int64_t>& to, const std::vector<int64_t>& more) {
  to.insert(to.end(), more.begin(), more.end());
}
}  // namespace

System system_of(const SliceSystems& systems, int64_t slice, int64_t stages, const double* columns,
                 const std::vector<uint8_t>& on, const Groups& groups, std::vector<StageView>& views) {
  const int64_t first = systems.begin[slice], n = systems.begin[slice + 1] - first, stride = n + kColumnPadding;
  const int64_t* stage_begin = systems.stage_begin + slice * (stages + 1);
  views.clear();
  for (int64_t l = 0; l < stages; ++l) {
    const int64_t begin = stage_begin[l], end = stage_begin[l + 1];
    views.push_back({begin, end, n, columns + begin * stride + end, stride});
  }
  return {{views.data(), stages},
          groups.lines(),
          n,
          systems.line + first,
          on.data(),
          systems.a + first,
          systems.b + first,
          systems.c + first,
          systems.error + first,
          systems.norms,
          systems.corners + slice * systems.n_corners * 2,
          systems.n_corners,
          groups.table(),
          groups.zero(),
          borders_of(systems, slice)};
}

ExactSlice exact_slice(const SliceSystems& systems, int64_t slice) {
  const int64_t own = systems.shared ? 0 : slice * systems.dimensions;
  return {systems.dimensions,
          systems.u + own,
          systems.v + own,
          systems.origin + slice * systems.dimensions,
          systems.corners + slice * systems.n_corners * 2,
          systems.n_corners,
          borders_of(systems, slice)};
}

Said IntegersOfSlices::say(int64_t slice, const Question& question, const uint8_t* on) {
  if (slice != slice_) {
    exact_ = std::make_unique<ExactRows>(digits_, exact_slice(systems_, slice), groups_);
    on_ = settled_on(systems_, slice, groups_.lines());
    slice_ = slice;
  }
  const int64_t first = systems_.begin[slice];
  for (int64_t row = 0; row < systems_.begin[slice + 1] - first; ++row)
    on_[static_cast<size_t>(systems_.line[first + row])] = on[row];
  return said_by(*exact_, question, on_.data());
}

// Its lines are its rows, numbered from 0. Where there are maxima, two more lines, of which the second is on, stand for
// those that are settled.
NumberedSystems::NumberedSystems(const SliceSystems& systems, int64_t stages, const Groups& groups) {
  const int64_t slices = systems.slices, bytes = (groups.lines() + 7) / 8;
  const bool maxima = groups.table().groups && groups.zero();
  std::vector<StageView> views;
  const double* columns = systems.columns;
  views_.reserve(static_cast<size_t>(slices * stages));
  const int64_t size = systems.begin[slices] + 2 * slices;
  if (maxima) zero_.reserve(static_cast<size_t>(size)), on_.reserve(static_cast<size_t>(size));
  for (int64_t i = 0; i < slices; ++i) {
    const int64_t first = systems.begin[i], n = systems.begin[i + 1] - first;
    System system = system_of(systems, i, stages, columns, {}, groups, views);
    columns += n * (n + kColumnPadding);
    system.stages.first = views_.data() + views_.size();
    views_.insert(views_.end(), views.begin(), views.end());
    system.lines = n;
    system.numbers = system.line;
    system.line = nullptr, system.on = nullptr, system.zero = nullptr;
    if (maxima) {
      const int32_t* const line = systems.line + first;
      system.lines = n + 2;
      system.zero = zero_.data() + zero_.size(), system.on = on_.data() + on_.size();
      for (int64_t row = 0; row < n; ++row) {
        const int64_t by = groups.zero()[line[row]];
        const int32_t* const place = std::lower_bound(line, line + n, by);
        const bool is_row = by >= 0 && place < line + n && *place == by;
        const bool is_on = by >= 0 && systems.on[i * bytes + by / 8] >> (by % 8) & 1;
        zero_.push_back(by < 0 ? -1 : is_row ? place - line : n + is_on);
      }
      zero_.insert(zero_.end(), 2, -1);
      on_.insert(on_.end(), static_cast<size_t>(n + 1), 0), on_.push_back(1);
    }
    all_.push_back(system);
  }
}

SliceCounts count_slices(EnumerateFunction enumerate, const SliceSystems& systems, int64_t stages,
                         const std::shared_ptr<NetworkDigits>& digits, const Groups& groups, const EngineOptions& given,
                         EngineProgress& progress, WalkedSlices* walked) {
  EngineOptions options = given;
  options.changes = true;
  const int64_t lines = groups.lines();
  const size_t bytes = static_cast<size_t>((lines + 7) / 8);
  SliceCounts out;
  out.regions.assign(static_cast<size_t>(systems.slices * stages), 0);
  out.decisions.assign(static_cast<size_t>(systems.slices * 4), 0);
  out.changes.assign(static_cast<size_t>(systems.slices) * bytes, 0);
  out.somewhere = out.changes;
  const double* columns = systems.columns;
  std::vector<StageView> views;
  for (int64_t i = 0; i < systems.slices && !progress.stop; ++i) {
    const int64_t n = systems.begin[i + 1] - systems.begin[i];
    const std::vector<uint8_t> on = settled_on(systems, i, lines);
    const System system = system_of(systems, i, stages, columns, on, groups, views);
    if (given.max_regions >= 0) options.max_regions = progress.regions + given.max_regions;
    const bool is_done = walked && walked->done(i);
    const EngineResult found =
        is_done ? walked->result(i, system.line, lines)
                : enumerate(system, options, ExactRows(digits, exact_slice(systems, i), groups), progress);
    const Decisions& by = found.decisions;
    const int64_t decisions[] = {by.filter, by.exact, by.zeros, by.folds};
    std::copy(decisions, decisions + 4, out.decisions.begin() + 4 * i);
    std::copy(found.regions.begin(), found.regions.end(), out.regions.begin() + i * stages);
    const bool too_many =
        is_done ? stages && found.regions.back() > given.max_regions : progress.regions > options.max_regions;
    if (given.max_regions >= 0 && too_many) {
      out.stopped_at = i;
      break;
    }
    uint8_t* changes = out.changes.data() + static_cast<size_t>(i) * bytes;
    uint8_t* somewhere = out.somewhere.data() + static_cast<size_t>(i) * bytes;
    std::copy_n(systems.on + static_cast<size_t>(i) * bytes, bytes, somewhere);
    for (int64_t row = 0; row < n; ++row) {
      const size_t line = static_cast<size_t>(system.line[row]);
      const uint8_t sides = found.sides[line];
      changes[line / 8] |= static_cast<uint8_t>((sides == (kSomeOn | kSomeOff)) << line % 8);
      somewhere[line / 8] |= static_cast<uint8_t>((sides & kSomeOn) << line % 8);
    }
    append(out.pieces, found.pieces), append(out.zero_along, found.zero_along), append(out.zero_at, found.zero_at);
    columns += n * (n + kColumnPadding);
  }
  return out;
}

SegmentBreakpoints trace_slices(EnumerateFunction enumerate, const SliceSystems& systems, int64_t stages,
                                const std::shared_ptr<NetworkDigits>& digits, const Groups& groups,
                                const EngineOptions& given, EngineProgress& progress, WalkedSlices* walked) {
  EngineOptions options = given;
  const int64_t lines = groups.lines();
  const size_t bytes = static_cast<size_t>((lines + 7) / 8);
  SegmentBreakpoints out;
  out.starts.assign(systems.on, systems.on + static_cast<size_t>(systems.slices) * bytes);
  const double* columns = systems.columns;
  std::vector<StageView> views;
  for (int64_t i = 0; i < systems.slices && !progress.stop; ++i) {
    const int64_t n = systems.begin[i + 1] - systems.begin[i];
    const std::vector<uint8_t> on = settled_on(systems, i, lines);
    const System system = system_of(systems, i, stages, columns, on, groups, views);
    out.breakpoints.push_back(0);
    Pieces pieces(system, out, out.starts.data() + static_cast<size_t>(i) * bytes);
    options.cells = &pieces;
    const bool is_done = walked && walked->done(i);
    const EngineResult found =
        is_done ? walked->result(i, system.line, lines)
                : enumerate(system, options, ExactRows(digits, exact_slice(systems, i), groups), progress);
    if (is_done) walked->give_cells(i, pieces);
    out.decisions.filter += found.decisions.filter;
    out.decisions.exact += found.decisions.exact;
    out.decisions.zeros += found.decisions.zeros;
    columns += n * (n + kColumnPadding);
  }
  return out;
}

}  // namespace pylinregion
