// csrc/partition/outside.h -- what a walk needs of the machine that it runs on, where that is a thread of the CPU.
#pragma once
#include <array>
#include <functional>
#include <stdexcept>
#include <utility>
#include <vector>

#include "engine.h"
#include "exact_rows.h"

namespace pylinregion {
namespace {

// What a stretch of the walk has found, until it is given away.
struct Found {
  EngineResult result;
  CellList cells;
  bool waits = false;
};

class Outside {
 public:
  Outside(const Shared& shared, EngineProgress& progress, const ExactRows& exact)
      : shared_(shared),
        system_(shared.system),
        options_(shared.options),
        progress_(progress),
        exact_(exact),
        row_on_(static_cast<size_t>(padded(system_.line ? system_.rows : 0)), 0) {
    start();
  }

  // --- for the engine ---
  Arena memory() const { return Arena(); }
  Tally tally() {
    EngineResult& to = result_;
    return {to.regions.data(), to.sides.data(), to.pieces.data(), to.zero_along.data(), to.zero_at.data()};
  }
  int sign_at(int64_t i, int64_t j, int64_t k, const uint8_t* on) { return exact_.sign_at(i, j, k, on); }
  Place crossing(int64_t i, int64_t j, const uint8_t* on) {
    const std::array<double, 2> at = exact_.crossing(i, j, on);
    return {at[0], at[1]};
  }
  [[noreturn]] void fail(const char* why) const { throw std::logic_error(why); }
  static constexpr bool is_open() { return false; }  // a decision is never open
  static void keep_zeros() {}
  static void put_zeros_back() {}
  bool stopped() const { return progress_.stop.load(std::memory_order_relaxed); }
  void count(int64_t cells) {
    unreported_ += cells;
    if (unreported_ >= kReportedAfter) report();
  }
  void write(const Polygon& polygon, const uint8_t* on) {
    write_cell(polygon, on);
    if (cells_.keys.size() < asked_ + kAskedAfter) return;
    asked_ = cells_.keys.size();
    if (my_turn_()) give_away();
  }

  // --- for those who walk ---
  // Whether all that comes before this walk has been given away, so that its own cells may be.
  void ask_for_turn(std::function<bool()> my_turn) { my_turn_ = std::move(my_turn); }
  void report();
  void give_away() {
    options_.cells->add(cells_);
    cells_.clear();
    asked_ = 0;
  }
  Found take_found() {  // all but the decisions
    Found taken{std::move(result_), std::move(cells_), true};
    start();
    return taken;
  }

 private:
  static constexpr size_t kAskedAfter = 4096;      // corners of cells: they are still in the cache then
  static constexpr int64_t kReportedAfter = 1024;  // cells

  void start();
  void write_cell(const Polygon& polygon, const uint8_t* on);

  const Shared& shared_;
  const System& system_;
  const EngineOptions& options_;
  EngineProgress& progress_;
  ExactRows exact_;
  std::vector<uint8_t> row_on_;  // of each row of a system of some lines, when a cell is written; padded with 0
  EngineResult result_;
  CellList cells_;
  std::function<bool()> my_turn_;
  size_t asked_ = 0;  // corners when that was asked last
  int64_t unreported_ = 0, unreported_bytes_ = 0;
};

inline void Outside::write_cell(const Polygon& polygon, const uint8_t* on) {
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
    row_on_[static_cast<size_t>(row)] = on[system_.line[row]];
  const size_t size = system_.line ? row_on_.size() : static_cast<size_t>(padded(system_.lines));
  const size_t bytes = size / 8, at = cells.patterns.size();
  cells.patterns.resize(at + bytes);
  pack(system_.line ? row_on_.data() : on, static_cast<int64_t>(size), cells.patterns.data() + at);
  unreported_bytes_ += static_cast<int64_t>(bytes) + 8 + 36 * polygon.n;
}

// To whoever watches, and stops the walk when there are too many.
inline void Outside::report() {
  const int64_t regions = progress_.regions += unreported_, bytes = progress_.bytes += unreported_bytes_;
  if ((options_.max_regions >= 0 && regions > options_.max_regions) ||
      (options_.max_bytes >= 0 && bytes > options_.max_bytes))
    progress_.stop = true;
  unreported_ = unreported_bytes_ = 0;
}

inline void Outside::start() {
  result_ = EngineResult();
  const size_t stages = static_cast<size_t>(system_.stages.count);
  result_.regions.assign(stages, 0);
  if (options_.changes) result_.sides.assign(static_cast<size_t>(padded(system_.lines)), 0);
  if (options_.pieces) {
    const size_t n = static_cast<size_t>(system_.n_corners);
    result_.pieces.assign(stages * n, 0);
    result_.zero_along.assign(n, 0), result_.zero_at.assign(n, 0);
  }
  cells_.clear();
  asked_ = 0;
}

}  // namespace
}  // namespace pylinregion
