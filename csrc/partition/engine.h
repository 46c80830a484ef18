// csrc/partition/engine.h -- the folded sub-network engine. Declared here; its members are defined in the files that
// enumerate.inl includes, one for each step, once per instruction set. The words: README.md. How it works and why it is
// exact: docs/exactness.md.
//
// Depth first over convex cells. A cell carries the lines of the current and the later stages that may still cross it:
// their affine part on it, and (in its Fold) what they take from each other. A line that is settled on the cell is
// substituted (on) or dropped (off). When much has been settled, the rest is folded into a smaller system.
#pragma once
#include "../rounding.h"
#include "arena.h"
#include "forms.h"
#include "geometry.h"
#include "lanes.h"
#include "system.h"

namespace pylinregion {
namespace {

// Bounds by norms of the errors in a fold, by stage; see norms.inl. Null pointers: the system came without.
struct Norms {
  double* own;      // 2-norm of what the rows' own arithmetic has rounded so far
  double* size;     // |a| hs + |b| ht + |c|, with 2-norms over rows: now, and of all that is added to them
  double* carried;  // 2-norm of all that the rows are off by once the stages before them are settled
  double* rounded;  // what an operation adds to that
};

// A system of lines with its coefficients, fixed while cells below it are cut. Rows are lines, by stage.
struct Fold {
  const StageView* stages;  // [stages of the network]
  int64_t rows;
  const int32_t* line;  // [rows] their numbers in the network; room for eight more
  RowForms far;         // of rows that nothing was substituted into since the root
  int64_t first;        // the stage in which it was made
  int64_t depth;        // folds above it
  Norms norms;
};

// The forms of some rows of a stage, next to each other.
struct SomeRows : Forms {
  int64_t n;
  const int32_t* row;  // [n]
};
// Of the current stage, those whose lines may cross a cell.
struct Unsettled : SomeRows {
  const int32_t* line;  // [n]
};

struct Cell {
  const Fold* fold;
  int64_t stage;  // the current one: those before are settled
  // Of rows of the current and later stages, before `reach`; the rest are fold->far. Of each row
  // |z_r - A_r - sum C_rc max(z_c, 0)| <= p on the cell, and p holds what the rounding of the budget can add.
  RowForms forms;
  int64_t reach;
  Unsettled unsettled;
  Polygon polygon;
  int64_t spent;       // roundings of the budget since p was last set
  int64_t operations;  // roundings since the fold was made
  int64_t attempt;     // unsettled lines when a fold was last tried in this stage
};

// What does not change during a walk.
struct Shared {
  System system;
  EngineOptions options;
  const int32_t* row_numbers;  // 0, 1, 2 ...: rows of a stage are consecutive; a few more than rows
  const uint8_t* has_groups;   // [stages]: are its lines candidates of maxima
  double blur;                 // coordinates need not be known better
  double hs, ht;               // bounds of |s|, |t| on the slice
  int64_t budget;              // roundings that p prepays
  double prepaid;              // what they add to p, in units of a row's magnitude
};

// Where a walk counts; see EngineResult.
struct Tally {
  int64_t* regions;
  uint8_t* sides;
  int64_t *pieces, *zero_along, *zero_at;
};

// What a walk needs of the machine that it runs on: integers, room for what it finds, those who watch it.
class Outside;

// What max(z, 0) of a line is between, as lambda * (affine form) +- radius, for all that depends on it.
struct Relaxed {
  Forms form;    // its p is the radius
  double* high;  // upper bound of max(z, 0)
};

// What a fold does to a stage, in rows.
struct StageCount {
  int64_t kept, on;
  int64_t likely;  // lines that would cross the cell if their relaxed forms were exact
};

// What a fold does with the rows of the fold before it.
struct FoldPlan {
  int64_t first, end;    // the stages that are folded; rows of later stages are all kept
  int64_t touched_end;   // the first stage from which on the rows are not even touched
  int64_t kept, n_on;    // rows of the folded stages
  Bits* keeps;           // of each stage after the first, for as many rows as there are lanes: which of them are kept
  Bits* is_on;           // likewise, which are on
  int64_t* keeps_begin;  // [stages + 1]
  int32_t* on;           // [n_on]: rows that are on, by stage
  const double* high;    // [rows] upper bounds of max(z, 0)
  StageCount* counts;    // of each folded stage
};

// Where a line cuts the border of a cell: on which edge, and where on it in [0, 1].
struct ChordEnd {
  int64_t edge;
  double t, error;
};
struct Chord {
  ChordEnd from, to;  // from.edge < to.edge
};

// What can be told of two candidates of a maximum on a cell.
enum Contest : int8_t { kFirstWins, kSecondWins, kBothMay, kOpen };

// A vertex that ShareNames has not named yet has the key 0.
PLR_ENGINE bool is_unnamed(VertexKey key) { return key.high == 0 && key.low == 0; }

// Where on a cell a candidate is the largest of its group; or on which side of a line it is, whose candidate is the
// line itself, where it is on, or none.
struct Share {
  int64_t candidate;
  Polygon polygon;
};
constexpr int64_t kNone = -1;

class Engine {
 protected:
  PLR_ENGINE Engine(const Shared& shared, Outside& outside);

  // --- memory for rows, and their sizes: rows.inl ---
  PLR_ENGINE Forms take_forms(int64_t n);
  PLR_ENGINE RowForms take_row_forms(int64_t from, int64_t to);
  template <int N> PLR_ENGINE Arrays<N> gathered(const Arrays<N>& from, int64_t first, const int32_t* t, int64_t n);
  PLR_ENGINE double magnitude(const Forms& x, int64_t i) const;
  PLR_ENGINE V magnitudes(const Forms& x, int64_t i) const;
  PLR_ENGINE const int32_t* root_lines() const { return system_.line ? system_.line : shared_.row_numbers; }
  PLR_ENGINE Unsettled unsettled_of(const Cell& cell) const;
  PLR_ENGINE static Unsettled without_first(const Unsettled& all, int64_t n);

  // --- the signs of a line at the vertices: signs.inl ---
  PLR_ENGINE double threshold(double a, double b, double p, double d) const;
  PLR_ENGINE int exact_sign(const Polygon& polygon, int64_t vertex, int64_t row);
  PLR_ENGINE void vertex_signs(const Cell& cell, int64_t k, int8_t* signs, double* z);

  // --- which lines cross a cell: settle.inl ---
  PLR_ENGINE void set_on(int32_t line, bool on);
  PLR_STEP void settle(Cell& cell);
  PLR_ENGINE static int64_t put_forms(const Forms& to, int64_t n, V a, V b, V c, V p, uint32_t bits);
  PLR_COLD int settled_sign(const Cell& cell, int64_t k);

  // --- what those that are on give to others: substitute.inl ---
  PLR_STEP void substitute(Cell& cell, const SomeRows& on);
  PLR_STEP void prepay(Cell& cell);

  // --- where they cut it: cut.inl ---
  PLR_STEP bool cut_by_first(const Cell& cell, Polygon& above, Polygon& below);
  PLR_ENGINE NewVertex known_crossing(const Polygon& polygon, int64_t i, const RowOnPlane& line, double z_i,
                                      double z_next);

  // --- cells that are only counted: chords.inl ---
  PLR_STEP bool count_chords(const Cell& cell);
  PLR_ENGINE bool chord_of(const Cell& cell, int64_t k, Chord& chord) const;
  PLR_ENGINE static int interleave(const Chord& p, const Chord& q);
  PLR_ENGINE bool certain_at_crossing(const Cell& cell, int64_t i, int64_t j, int64_t l) const;

  // --- folds: fold_plan.inl (of maxima, fold_maxima.inl), then fold.inl ---
  class FoldPlanner;
  class FoldMaker;
  PLR_STEP void refold(Cell& cell);
  PLR_ENGINE bool may_fold(const Cell& cell) const;
  PLR_ENGINE bool pays(const Fold& fold, const FoldPlan& plan) const;
  PLR_ENGINE void settle_rest(const Fold& fold, const FoldPlan& plan);

  // --- bounds by norms: norms.inl ---
  PLR_ENGINE Norms take_norms();
  PLR_ENGINE static double norm(const double* x, int64_t n);
  PLR_ENGINE double size_norm(const Forms& x, int64_t n) const;
  PLR_ENGINE double transfer(int64_t to, int64_t from) const;
  PLR_ENGINE double frobenius(int64_t to, int64_t from) const;
  PLR_ENGINE Norms root_norms(const Forms& forms);
  PLR_ENGINE void add_up(const Norms& to, int64_t first) const;
  PLR_ENGINE double* capped(const Cell& cell);

  // --- stages of maxima: settle_maxima.inl, cut_maxima.inl, share_names.inl ---
  class ShareNames;
  PLR_ENGINE bool has_groups(int64_t stage) const { return shared_.has_groups[stage]; }
  template <class LineOf> PLR_ENGINE int64_t group_end(int64_t begin, int64_t end, LineOf&& line_of) const;
  PLR_ENGINE int64_t group_end(const Unsettled& candidates, int64_t begin) const;
  PLR_ENGINE int64_t pair_of(const Unsettled& candidates, int64_t i, int64_t j) const;
  PLR_ENGINE static RowOnPlane difference(const Unsettled& candidates, int64_t i, int64_t j);
  PLR_ENGINE int difference_sign(const Unsettled& candidates, const Polygon& polygon, int64_t v, const RowOnPlane& row,
                                 int64_t i, int64_t j, double& z);
  PLR_STEP void settle_maxima(Cell& cell);
  PLR_ENGINE void find_losers(const Cell& cell, int64_t begin, int64_t end, uint8_t* lost);
  PLR_ENGINE void find_rectified_losers(const Unsettled& candidates, int64_t begin, int64_t end, uint8_t* lost);
  PLR_ENGINE Contest contest(const Cell& cell, int64_t i, int64_t j, bool exactly);
  PLR_STEP int64_t cut_into_shares(const Cell& cell, int64_t size, Share* shares);
  PLR_ENGINE bool clip_to_share(const Cell& cell, const int64_t* rivals, int64_t n, Share& share);
  PLR_ENGINE void line_up(const Cell& cell, Share* shares, int64_t n);

  // --- what lies along the borders: borders.inl ---
  PLR_ENGINE void see_pieces(const Polygon& polygon, int64_t stage);
  PLR_ENGINE void see_zeros(const Polygon& polygon, const int8_t* signs);

  const Shared& shared_;
  const System& system_;
  const EngineOptions& options_;
  Outside& outside_;
  const double factor_;  // of thresholds
  const int64_t n_stages_;
  Arena arena_;
  uint8_t* const on_;  // of each settled line: is it on; padded with 0
  Tally tally_;
  Decisions decisions_;
};

}  // namespace
}  // namespace pylinregion
