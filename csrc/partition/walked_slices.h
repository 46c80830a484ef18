// csrc/partition/walked_slices.h -- what a device has found along slices, and what it asks.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "exact_rows.h"
#include "system.h"

namespace pylinregion {

// What float64 does not decide: the sign of row k where rows i and j cross; or, if k is kWhere, where they do. Rows are
// given by their numbers.
struct Question {
  int64_t i, j, k;
};
constexpr int64_t kWhere = INT64_MIN;
struct Said {
  int sign;
  double x, y;
};
// Of a slice, with on[line] of its system.
using Ask = std::function<Said(int64_t slice, const Question&, const uint8_t* on)>;

Said said_by(ExactRows& exact, const Question& question, const uint8_t* on);

// A cell as a warp writes it down, in eight-byte words: a Record, the vertices' [n, 2] x and y, [n] keys, [n] rows of
// int32, and the pattern, a bit for each row; or, where it put one off, the number of that task in its launch.
struct Record {
  int32_t corners;  // kPutOff: a task
  int32_t bytes;    // of all of it
};
constexpr int32_t kPutOff = -1;
PLR_HD inline int64_t bytes_of_record(int64_t corners, int64_t rows) {
  return static_cast<int64_t>(sizeof(Record)) + 32 * corners + (4 * corners + (rows + 7) / 8 + 7) / 8 * 8;
}

// Cells that walks have found, in the order of a walk that puts nothing off.
class CellsOfWalks {
 public:
  // Of one launch: which of the tasks that it has put off are walks of this class; -1: none.
  using Later = std::shared_ptr<const std::vector<int64_t>>;

  int64_t add_walk() { return walks_.emplace_back(), static_cast<int64_t>(walks_.size()) - 1; }
  // What a walk has written, behind what it wrote before.
  void add(int64_t walk, std::vector<char> records, Later later) {
    bytes_ += static_cast<int64_t>(records.size());
    walks_[static_cast<size_t>(walk)].push_back({std::move(records), std::move(later)});
  }
  int64_t bytes() const { return bytes_; }

  // Gives away what a walk, and those that it put off, have found; it is not kept. rows: of the slice's system.
  void give(int64_t walk, int64_t rows, CellSink& sink);

 private:
  struct Piece {
    std::vector<char> records;
    Later later;
  };
  std::vector<std::vector<Piece>> walks_;
  int64_t bytes_ = 0;
};

// Of a slice that is not done nothing is a number.
struct WalkedSlices {
  std::vector<WalkOutcome> outcomes;                 // [slices]
  std::vector<int64_t> regions, decisions;           // [slices, stages], [slices, 4]: see SliceCounts
  std::vector<int64_t> pieces, zero_along, zero_at;  // if options.pieces: see EngineResult
  std::vector<uint8_t> sides;                        // [rows] of all: kSomeOn, kSomeOff, or both
  std::vector<int64_t> first_row;                    // [slices + 1]
  int64_t stages = 0, corners = 0;
  int64_t halvings = 0;        // of the memory that it wanted to have
  std::vector<int64_t> walks;  // [slices] of `cells`; if cells were asked for
  CellsOfWalks cells;

  bool done(int64_t slice) const { return outcomes[static_cast<size_t>(slice)] == WalkOutcome::done; }
  int64_t left_to_the_cpu() const;
  // Of a slice that is done. line: [rows] the numbers of its lines, of so many; null: the same.
  EngineResult result(int64_t slice, const int32_t* line, int64_t lines) const;
  // Its cells, once.
  void give_cells(int64_t slice, CellSink& sink);
};

}  // namespace pylinregion
