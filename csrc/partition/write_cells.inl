// csrc/partition/write_cells.inl -- Engine: what the walk has found: counts, and cells.
#pragma once
#include "borders.inl"
#include "engine.h"

namespace pylinregion {
namespace {

constexpr size_t kAskedAfter = 4096;      // corners of cells: they are still in the cache then
constexpr int64_t kReportedAfter = 1024;  // cells

// A cell that is settled in all stages.
inline void Engine::leaf(const Polygon& polygon) {
  ++unreported_;
  if (options_.cells) {
    write_cell(polygon);
    if (cells_.keys.size() >= asked_ + kAskedAfter) {
      asked_ = cells_.keys.size();
      if (my_turn_()) give_away();
    }
  }
  if (unreported_ >= kReportedAfter) report();
}

// A cell that is settled in its stage.
inline void Engine::finish_stage(Cell& cell) {
  ++result_.regions[static_cast<size_t>(cell.stage)];
  if (options_.pieces) see_pieces(cell.polygon, cell.stage);
  ++cell.stage;
}

inline void Engine::write_cell(const Polygon& polygon) {
  CellList& cells = cells_;
  const size_t from = cells.keys.size(), n = static_cast<size_t>(polygon.n);
  cells.xy.resize(2 * (from + n));
  cells.rows.resize(from + n);
  for (size_t i = 0; i < n; ++i) {
    cells.xy[2 * (from + i)] = polygon.x[i], cells.xy[2 * (from + i) + 1] = polygon.y[i];
    cells.rows[from + i] = static_cast<int32_t>(polygon.edges[i]->number);
  }
  cells.keys.insert(cells.keys.end(), polygon.keys, polygon.keys + n);
  cells.offsets.push_back(static_cast<int64_t>(cells.keys.size()));
  for (int64_t row = 0; system_.line && row < system_.rows; ++row)
    row_on_[static_cast<size_t>(row)] = on_[static_cast<size_t>(system_.line[row])];
  const std::vector<uint8_t>& on = system_.line ? row_on_ : on_;
  const size_t bytes = on.size() / 8, at = cells.patterns.size();
  cells.patterns.resize(at + bytes);
  pack(on.data(), static_cast<int64_t>(on.size()), cells.patterns.data() + at);
  unreported_bytes_ += static_cast<int64_t>(bytes) + 8 + 36 * polygon.n;
}

// To whoever watches, and stops the walk when there are too many.
inline void Engine::report() {
  EngineProgress& progress = shared_.progress;
  const int64_t regions = progress.regions += unreported_, bytes = progress.bytes += unreported_bytes_;
  if ((options_.max_regions >= 0 && regions > options_.max_regions) ||
      (options_.max_bytes >= 0 && bytes > options_.max_bytes))
    progress.stop = true;
  unreported_ = unreported_bytes_ = 0;
}

inline void Engine::give_away() {
  options_.cells->add(cells_);
  cells_.clear();
  asked_ = 0;
}

inline void Engine::start_result() {
  result_ = EngineResult();
  result_.regions.assign(system_.stages.size(), 0);
  if (options_.changes) result_.sides.assign(on_.size(), 0);
  if (options_.pieces) {
    const size_t n = static_cast<size_t>(system_.n_corners);
    result_.pieces.assign(system_.stages.size() * n, 0);
    result_.zero_along.assign(n, 0), result_.zero_at.assign(n, 0);
  }
  cells_.clear();
  asked_ = 0;
}

inline Found Engine::take_found() {
  Found taken{std::move(result_), std::move(cells_), true};
  start_result();
  return taken;
}

}  // namespace
}  // namespace pylinregion
