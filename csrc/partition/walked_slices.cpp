// csrc/partition/walked_slices.cpp -- see walked_slices.h.
#include "walked_slices.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

namespace pylinregion {
namespace {

constexpr size_t kCornersAtOnce = 4096;  // as a walk of the CPU gives them away

void append(CellList& to, const char* record, int64_t corners, int64_t rows) {
  const size_t n = static_cast<size_t>(corners), from = to.rows.size();
  const size_t bytes = static_cast<size_t>((rows + 7) / 8), at = to.patterns.size();
  to.xy.resize(2 * (from + n)), to.keys.resize(from + n), to.rows.resize(from + n), to.patterns.resize(at + bytes);
  const char* next = record + sizeof(Record);
  const auto take = [&](void* out, size_t size) {
    if (size) std::memcpy(out, next, size);
    next += size;
  };
  take(to.xy.data() + 2 * from, 16 * n);
  take(to.keys.data() + from, 16 * n);
  take(to.rows.data() + from, 4 * n);
  take(to.patterns.data() + at, bytes);
  to.offsets.push_back(static_cast<int64_t>(to.rows.size()));
}

}  // namespace

Said said_by(ExactRows& exact, const Question& it, const uint8_t* on) {
  if (it.k != kWhere) return {exact.sign_at(it.i, it.j, it.k, on), 0, 0};
  const std::array<double, 2> at = exact.crossing(it.i, it.j, on);
  return {0, at[0], at[1]};
}

void CellsOfWalks::give(int64_t root, int64_t rows, CellSink& sink) {
  struct Place {
    int64_t walk;
    size_t piece, at;
  };
  CellList list;
  std::vector<Place> open{{root, 0, 0}};
  while (!open.empty()) {
    Place& here = open.back();
    std::vector<Piece>& pieces = walks_[static_cast<size_t>(here.walk)];
    if (here.piece == pieces.size()) {
      pieces = {};
      open.pop_back();
      continue;
    }
    const Piece& piece = pieces[here.piece];
    if (here.at == piece.records.size()) {
      ++here.piece, here.at = 0;
      continue;
    }
    const char* const at = piece.records.data() + here.at;
    Record record;
    std::memcpy(&record, at, sizeof record);
    here.at += static_cast<size_t>(record.bytes);
    if (record.corners == kPutOff) {
      int64_t number;
      std::memcpy(&number, at + sizeof record, sizeof number);
      const int64_t walk = (*piece.later)[static_cast<size_t>(number)];
      if (walk < 0) throw std::logic_error("a walk along a slice was lost");
      open.push_back({walk, 0, 0});
      continue;
    }
    append(list, at, record.corners, rows);
    if (list.rows.size() < kCornersAtOnce) continue;
    sink.add(list);
    list.clear();
  }
  sink.add(list);
}

int64_t WalkedSlices::left_to_the_cpu() const {
  return static_cast<int64_t>(outcomes.size()) - std::count(outcomes.begin(), outcomes.end(), WalkOutcome::done);
}

EngineResult WalkedSlices::result(int64_t slice, const int32_t* line, int64_t lines) const {
  EngineResult found;
  const auto take = [slice](const std::vector<int64_t>& from, int64_t n) {
    if (from.empty()) return std::vector<int64_t>();
    return std::vector<int64_t>(from.begin() + slice * n, from.begin() + (slice + 1) * n);
  };
  found.regions = take(regions, stages);
  const std::vector<int64_t> by = take(decisions, 4);
  found.decisions = {by[0], by[1], by[2], by[3]};
  found.pieces = take(pieces, stages * corners);
  found.zero_along = take(zero_along, corners), found.zero_at = take(zero_at, corners);
  found.sides.assign(static_cast<size_t>(lines), 0);
  const int64_t first = first_row[static_cast<size_t>(slice)];
  for (int64_t row = first; row < first_row[static_cast<size_t>(slice) + 1]; ++row)
    found.sides[static_cast<size_t>(line ? line[row - first] : row - first)] = sides[static_cast<size_t>(row)];
  return found;
}

void WalkedSlices::give_cells(int64_t slice, CellSink& sink) {
  const size_t i = static_cast<size_t>(slice);
  cells.give(walks[i], first_row[i + 1] - first_row[i], sink);
}

}  // namespace pylinregion
