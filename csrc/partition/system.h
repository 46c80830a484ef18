// csrc/partition/system.h -- what the engine enumerates, how, and what comes out.
//
// A network on a slice is a system of lines: z_r(s, t) = A_r (s, t, 1) + sum of C_rc max(z_c, 0) over the lines c of
// earlier stages. Line r is where z_r = 0. A ReLU is one line; every continuous piecewise linear unit is an affine part
// plus one line for each kink (psi(z) = slope_0 z + const + sum of jump_k max(z - kink_k, 0)).
//
// A stage may have candidates of maxima instead (groups.h): what later lines take from candidate c is then C_rc z_c
// where it is the largest of its group, else 0, with the same C_rc for all candidates of a group.
#pragma once
#include <atomic>
#include <cstdint>
#include <vector>

#include "aligned.h"
#include "groups.h"

namespace pylinregion {

// Rows [begin, end) of one stage; column t of them is columns + (t - begin) * stride, for the rows [end, extent).
struct StageView {
  int64_t begin, end, extent;
  const double* columns;
  int64_t stride;
};

// Of a network, one behind the other.
struct Stages {
  const StageView* first;
  int64_t count;

  PLR_HD const StageView& operator[](int64_t l) const { return first[l]; }
  PLR_HD const StageView* begin() const { return first; }
  PLR_HD const StageView* end() const { return first + count; }
};

// It has only numbers, and where they are: so a device can have it as it is.
struct System {
  Stages stages;
  int64_t lines;            // of the network
  int64_t rows;             // lines that may cross the slice
  const int32_t* line;      // [rows], ascending, and eight more that may be read: their numbers; null: all lines
  const uint8_t* on;        // [lines]: which of the others are on; null with `line`
  const double *a, *b, *c;  // [rows]
  const double* error;      // [rows] >= |z_r - A_r - sum C_rc max(z_c, 0)| anywhere on the slice
  // [2, stages, stages] or null: bounds of the spectral and the Frobenius norms of what the rows of a stage take from
  // the lines of another, directly and through any lines between them, after up to kMostFolds folds.
  const double* norms;
  const double* corners;  // [n_corners, 2], counter-clockwise, strictly convex; 2 corners: a segment on t = 0
  int64_t n_corners;
  GroupTable groups;
  const int64_t* zero;  // [lines] or null, see Groups
  // [n_corners, 2, 2]: of the border behind each corner two points that it lies on, the first towards the corner. The
  // corners are then where borders cross, rounded to the nearest numbers. Null: a border goes from corner to corner.
  const double* borders = nullptr;
  // [lines]: their numbers in the network, where lines are the rows of a fold, and those that are settled have no
  // place; null: the same.
  const int32_t* numbers = nullptr;

  PLR_HD int64_t number_of(int64_t l) const { return numbers ? numbers[l] : l; }
  PLR_HD bool is_fold() const { return line || numbers; }
};

// Folds one below the other: what they round adds up, and norms allow for so many.
constexpr int64_t kMostFolds = 4096;

// A row's number: a line of the network, or (beyond these) a pair of candidates of a maximum, or (negative) the border
// from corner e to the next, or the axis t = 0 that a segment lies on.
PLR_HD inline int64_t border_row(int64_t e) { return -2 - e; }
PLR_HD inline int64_t border_of(int64_t row) { return -2 - row; }
PLR_HD inline bool is_border(int64_t row) { return row <= -2; }
constexpr int64_t kAxisRow = -1;

class CellSink;

struct EngineOptions {
  CellSink* cells = nullptr;  // takes the cells, in their order, from one thread at a time; null: they are only counted
  bool changes = false;       // tell which lines are not on one side of all cells
  bool pieces = false;        // and what cells there are along the borders
  int threads = 1;
  // One of so many parts of the walk, 0 the first: together they find what the whole does, in its order.
  int64_t part = 0, parts = 1;
  bool force_exact = false;  // every decision through the exact stage: a test
  // Stages to fold ahead at every chance, 0: never fold again below the root (other orders of arithmetic: tests);
  // -1: as many as pay, where it pays.
  int64_t fold_ahead = -1;
  int64_t max_regions = -1;  // none
  int64_t max_bytes = -1;    // of the cells
};

struct VertexKey {
  uint64_t high, low;
  PLR_HD bool operator==(const VertexKey& other) const { return high == other.high && low == other.low; }
};

// Cells one after another. Vertex i of a cell is followed by edge i.
struct CellList {
  Array<int64_t> offsets;   // [cells + 1] into the four below; starts as {0}
  Array<double> xy;         // [vertices, 2]
  Array<VertexKey> keys;    // [vertices]: equal keys are one point
  Array<int32_t> rows;      // [vertices]: the row on the edge (border_row)
  Array<uint8_t> patterns;  // [cells, pattern_bytes]: bit r % 8 of byte r / 8 is 1 where line r is on; or row r, of
                            // a system of some of the lines

  CellList() { clear(); }
  void clear() {
    offsets.assign(1, 0);
    xy.clear(), keys.clear(), rows.clear(), patterns.clear();
  }
};

class CellSink {
 public:
  virtual ~CellSink() = default;
  virtual void add(const CellList& cells) = 0;  // that come after those so far
};

struct Decisions {
  int64_t filter = 0, exact = 0, zeros = 0;  // zeros: of the exact ones, how many were ties
  int64_t folds = 0;
};

// How a walk of a GPU's warp ended, or that it did not. Where there were too many regions (`open`), or more memory was
// needed, or room for what it finds, the CPU walks.
enum class WalkOutcome : int32_t { none, done, open, no_memory, no_room, stopped, failed };

// In some cells of a walk a line is on; in some it is off.
constexpr uint8_t kSomeOn = 1, kSomeOff = 2;

struct EngineResult {
  std::vector<int64_t> regions;  // [stages]: cells after each stage
  Decisions decisions;
  std::vector<uint8_t>
      sides;  // [lines, padded] if changes are asked for: kSomeOn, kSomeOff, or both; 0: it was not asked
  // If pieces are asked for: [stages, n_corners]: cells along each border after each stage; [n_corners] how often a row
  // was 0 all along a cell's piece of a border, and at the corner before it, without being 0 all over the cell.
  std::vector<int64_t> pieces, zero_along, zero_at;
  bool stopped = false;  // by max_regions, max_bytes or the caller: the counts are of what was done
};

struct EngineProgress {
  std::atomic<int64_t> regions{0};
  std::atomic<int64_t> bytes{0};
  std::atomic<bool> stop{false};
};

class ExactRows;
using EnumerateFunction = EngineResult (*)(const System&, const EngineOptions&, const ExactRows&, EngineProgress&);
EngineResult enumerate_portable(const System&, const EngineOptions&, const ExactRows&, EngineProgress&);
EngineResult enumerate_avx2(const System&, const EngineOptions&, const ExactRows&, EngineProgress&);
EngineResult enumerate_avx512(const System&, const EngineOptions&, const ExactRows&, EngineProgress&);

}  // namespace pylinregion
