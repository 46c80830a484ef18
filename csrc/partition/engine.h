// csrc/partition/engine.h -- the folded sub-network engine, declared here; its members are defined in the files that
// enumerate.inl includes, one for each step, once per instruction set. How it works and why it is exact:
// docs/exactness.md.
//
// Depth first over convex cells. A cell carries the lines of the current and the later stages that may still cross it:
// their affine part on it, and (in its Fold) what they take from each other. A line that is settled on the cell is
// substituted (on) or dropped (off). When much has been settled, the rest is folded into a smaller system.
#pragma once
#include <functional>
#include <vector>

#include "arena.h"
#include "exact_rows.h"
#include "geometry.h"
#include "lanes.h"
#include "system.h"

namespace pylinregion {
namespace {

// The affine parts on a cell, indexed by row. |z_r - A_r - sum C_rc max(z_c, 0)| <= p on the cell, and p holds what the
// rounding of `budget` more operations can add.
using Affine = Rows4;

// Bounds by norms of the errors in a fold, by stage; see norms.inl. Null pointers: the system came without.
struct Norms {
  const double* own;      // 2-norm of what the rows' own arithmetic has rounded so far
  const double* size;     // |a| hs + |b| ht + |c|, with 2-norms over rows: now, and of all that is added to them
  const double* carried;  // 2-norm of all that the rows are off by once the stages before them are settled
  const double* rounded;  // what an operation adds to that
};

// A system of lines with its coefficients, fixed while cells below it are cut. Rows are lines, by stage.
struct Fold {
  const StageView* stages;  // [stages of the network]
  int64_t rows;
  const int32_t* line;  // [rows] their numbers in the network
  Affine far;           // the affine parts of rows that nothing was substituted into since the root
  int64_t first;        // the stage in which it was made
  int64_t depth;        // folds above it
  Norms norms;
};

// Some rows of a stage, copied together.
struct SomeRows : Rows4 {
  int64_t n;
  const int32_t* row;
};
// Those of the current stage that may cross a cell.
struct Candidates : SomeRows {
  const int32_t* line;
};

struct Cell {
  const Fold* fold;
  int64_t stage;
  Affine affine;  // rows of the current and later stages, before `reach`; the rest are fold->far
  int64_t reach;
  Candidates candidates;
  Polygon polygon;
  int64_t spent;       // roundings since p was last set, see kEvaluation
  int64_t operations;  // roundings since the fold was made
  int64_t attempt;     // crossing candidates when the last fold was tried in this stage
};

struct Task {
  Cell cell;
  std::vector<uint8_t> on;
};

// What a part of the walk found.
struct Part {
  EngineResult result;
  CellList cells;
  bool found = false;
};

struct Shared {
  const System& system;
  const EngineOptions& options;
  EngineProgress& progress;
  double blur;          // coordinates need not be known better
  double hs, ht;        // bounds of |s|, |t| on the slice
  int64_t widest;       // lines of the largest stage
  int64_t budget;       // roundings that p prepays, in units of kUnit
  double prepaid;       // budget * kUnit, rounded up
  int64_t split_depth;  // cuts above a task: enough tasks for all threads; more would fold again what one fold can
};

// What max(z, 0) of a line is between, as lambda * (affine form) +- radius, for all that depends on it.
struct Relaxed {
  Rows4 form;    // its p is the radius
  double* high;  // upper bound of max(z, 0)
};
// What a fold does to a stage, in rows.
struct StageCount {
  int64_t kept, on;
  int64_t likely;  // lines that would cross the cell if their relaxed forms were exact
};

// What a fold does with the rows of a cell's fold.
struct Plan {
  uint8_t* keeps;        // of each stage after the first, for every eight rows: which of them are kept
  int64_t* keeps_begin;  // [stages + 1]
  int32_t* on;           // [n_on]: rows that are on, by stage
  const double* high;    // upper bounds of max(z, 0)
  int64_t first, end;    // the stages that are folded; rows of later stages are all kept
  int64_t touched_end;   // the first stage from which on the rows are not even touched
  int64_t kept, n_on;    // rows of the folded stages
  StageCount* counts;    // of each of them
};

// Which of eight rows are settled on a cell, and which would cross it if their relaxed forms were exact.
struct Sides {
  uint32_t on, off, likely;
};

// The columns of a stage, on their way from one fold to the next.
struct Moved {
  const StageView *from, *to;
  int64_t stage, stage_end;  // they take part in the rows of the stages between
  int64_t row_end;
  const int32_t* rows;  // that they are of
  double *size_before, *size_after;
  double* room;  // kMovedTogether arrays over all rows
  int64_t size;  // of each
};

struct ChordEnd {
  int64_t edge;
  double t, error;  // where on the edge, in [0, 1]
};
struct Chord {
  ChordEnd from, to;  // from.edge < to.edge
};

struct OwnNorms {  // Norms, while they are made
  double *own, *size, *carried, *rounded;
};

enum Contest : int8_t { kFirstWins, kSecondWins, kBothMay, kOpen };

// The part of a cell on which a candidate is the largest of its group.
struct Share {
  int64_t candidate;
  Polygon polygon;
};

struct GroupFates {
  int64_t live, kept, on;
};

enum Fate : uint8_t { kGone, kKept, kOn };

class Engine {
 public:
  Engine(const Shared& shared, const ExactRows& exact);

  // Walks the whole tree; with `tasks`, cells at depth split_depth are put there instead of being walked, and the
  // results so far are closed: part i comes before task i. Without, cells are given away as they come.
  void run_root(std::vector<Task>* tasks, std::vector<Part>* before);
  // my_turn: whether all that comes before this task has been given away, so that its own cells may be.
  void run_task(const Task& task, std::function<bool()> my_turn);
  Part take_result();

 private:
  static constexpr int64_t kWorthFolding = 32;  // later rows: fewer are evaluated as fast as they are folded
  static constexpr size_t kGivenAway = 4096;    // corners of cells: they are still in the cache then
  static constexpr double kMostKept = 0.9;      // of a stage: where bounds prune less, a fold ends

  // --- the walk: walk.inl ---
  Polygon root_polygon();
  void enter_stage(Cell& cell, int64_t depth);
  void cut(Cell& cell, int64_t depth);
  void go_down(Cell& cell, int64_t depth);
  void split(const Cell& cell, int64_t depth);
  Candidates candidates_of(const Cell& cell) const;
  static Candidates without_first(const Candidates& all, int64_t n);

  // --- rows of affine forms: rows.inl ---
  double magnitude(const Affine& x, int64_t r) const;
  V magnitudes(const Affine& x, int64_t r) const;
  static Rows4 shifted(const Rows4& x, int64_t by);
  Affine take_affine(int64_t from, int64_t to);
  static const double* column(const StageView& stage, int64_t t);
  static void copy_rows(const Rows4& in, const Rows4& out, int64_t from, int64_t to);
  template <int N = 4> SomeRows gathered(const Rows4& from, const int32_t* t, int64_t n);
  Rows4 take_rows(int64_t n);

  // --- signs at vertices: signs.inl ---
  double threshold(double a, double b, double p, double d) const;
  int exact_sign(const Polygon& polygon, int64_t vertex, int64_t line);
  void vertex_signs(const Cell& cell, int64_t k, int8_t* signs, double* z);

  // --- settle.inl ---
  void settle(Cell& cell);
  static int64_t put_rows(const Rows4& to, int64_t n, V a, V b, V c, V p, uint32_t bits);
  int settled_sign(const Cell& cell, int64_t k);

  // --- substitute.inl ---
  void substitute(Cell& cell, const SomeRows& on);
  void add(const Rows4& in, const Rows4& out, const StageView& stage, const SomeRows& some) const;
  static Columns columns_of(const StageView& stage, const SomeRows& some);

  // --- cut.inl ---
  NewVertex known_crossing(const Polygon& polygon, int64_t i, const RowOnPlane& line, double z_i, double z_next);

  // --- chords.inl ---
  bool count_chords(const Cell& cell);
  bool chord_of(const Cell& cell, int64_t k, Chord& chord) const;
  static int interleave(const Chord& p, const Chord& q);
  bool certain_at_crossing(const Cell& cell, int64_t i, int64_t j, int64_t l) const;

  // --- what to fold: fold_plan.inl, of maxima relax_maxima.inl ---
  void refold(Cell& cell);
  void know_rows(const Affine& in, const Rows4& form, int64_t from, int64_t to, double g) const;
  bool worth_folding(const Fold& fold, const Plan& plan) const;
  Sides relax(const Polygon& polygon, const Rows4& form, int64_t r, double g, const Relaxed& out) const;
  GroupFates relax_groups(const Cell& cell, int64_t l, const Rows4& form, double g, const Relaxed& out, uint8_t* keeps,
                          int32_t* on, int32_t* live);

  // --- the smaller system: fold.inl ---
  void compact(Cell& cell, const Plan& plan);
  void move_columns(const Fold& fold, const Plan& plan, const Moved& moved, int64_t k, int64_t n,
                    const int64_t* on_begin);
  template <class Work> static void with_count(int64_t n, const Work& work);
  template <int N> static void take_columns(const Plan& plan, const Moved& moved, int64_t k, double* room);
  template <int N>
  static void keep_columns(const Fold& fold, const Plan& plan, const Moved& moved, int64_t k, const double* room);

  // --- bounds by norms: norms.inl ---
  static double norm(const double* x, int64_t from, int64_t to);
  double size_norm(const Rows4& x, int64_t from, int64_t to) const;
  double transfer(int64_t to, int64_t from) const;
  double frobenius(int64_t to, int64_t from) const;
  OwnNorms take_norms();
  Norms root_norms(const Affine& affine);
  Norms with_sums(const OwnNorms& to, int64_t first) const;
  double* capped(const Cell& cell);
  Norms folded_norms(const OwnNorms& to, const Cell& cell, int64_t first, int64_t last, const StageView* stages,
                     const Affine& affine, const double* fresh) const;

  // --- stages of maxima: settle_maxima.inl, cut_maxima.inl, share_names.inl ---
  class ShareNames;
  RowOnPlane difference(const Cell& cell, int64_t i, int64_t j) const;
  bool has_groups(int64_t stage) const;
  int64_t line_of(const Cell& cell, int64_t k) const;
  template <class LineOf> int64_t group_end(int64_t begin, int64_t end, LineOf&& line_at) const;
  int64_t group_end(const Cell& cell, int64_t begin) const;
  int difference_sign(const Cell& cell, const Polygon& polygon, int64_t v, const RowOnPlane& row, int64_t i, int64_t j,
                      double& z);
  Contest contest(const Cell& cell, int64_t i, int64_t j, bool exactly);
  void find_losers(const Cell& cell, int64_t begin, int64_t end, uint8_t* lost);
  void settle_groups(Cell& cell);
  void split_group(const Cell& cell, int64_t depth);
  bool clip_to_share(const Cell& cell, const int64_t* rivals, int64_t n, Share& share);
  void line_up(const Cell& cell, Share* shares, int64_t n);

  // --- results: write_cells.inl ---
  void start_result();
  void give_away();
  void leaf(const Polygon& polygon);
  void flush();

  const Shared& shared_;
  const System& system_;
  const EngineOptions& options_;
  ExactRows exact_;
  const double factor_;
  const int64_t n_stages_;
  std::vector<uint8_t> on_;            // of each settled line: is it on; padded with 0
  std::vector<int32_t> line_numbers_;  // 0, 1, 2 ...: rows of a stage are consecutive; a few more than lines
  std::vector<uint8_t> has_groups_;    // [stages]: are its lines candidates of maxima
  Fold root_fold_{};
  Arena arena_;
  EngineResult result_;
  CellList cells_;
  std::function<bool()> my_turn_;
  size_t asked_ = 0;  // corners when it was asked last
  std::vector<Task>* tasks_ = nullptr;
  std::vector<Part>* before_ = nullptr;
  int64_t unreported_ = 0, unreported_bytes_ = 0;
};

}  // namespace
}  // namespace pylinregion
