// csrc/partition/engine.inl -- the folded sub-network engine. Included by enumerate.inl, once per instruction set. How
// it works and why it is exact: docs/exactness.md.
//
// Depth first over convex cells. A cell carries the lines of the current and the later stages that may still cross it:
// their affine part on it, and (in its Fold) what they take from each other. A line that is settled on the cell is
// substituted (on) or dropped (off). When much has been settled, the rest is folded into a smaller system.
#include <exception>
#include <functional>
#include <memory>

#include "deep_thread.h"
#include "exact_rows.h"
#include "geometry.h"
#include "lanes.h"

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
  int64_t spent;       // roundings since p was last set, see Engine::kEvaluation
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

// Of the smaller extent of the slice: coordinates that are less certain come from the integers. Decides nothing.
constexpr double kBlur = 1e-7;

struct Shared {
  const System& system;
  const EngineOptions& options;
  EngineProgress& progress;
  double blur;          // coordinates need not be known better
  double hs, ht;        // bounds of |s|, |t| on the slice
  int64_t widest;       // lines of the largest stage
  int64_t budget;       // roundings that p prepays, in units of kUnit
  double prepaid;       // budget * kUnit, inflated
  int64_t split_depth;  // cuts above a task: enough tasks for all threads; more would fold again what one fold can
};

class Engine {
 public:
  Engine(const Shared& shared, const ExactRows& exact)
      : shared_(shared),
        system_(shared.system),
        options_(shared.options),
        exact_(exact),
        factor_(options_.force_exact ? 1e30 : kInflate),
        n_stages_(static_cast<int64_t>(system_.stages.size())),
        on_(static_cast<size_t>(padded(system_.lines)), 0),
        line_numbers_(static_cast<size_t>(system_.lines + kLanes)) {
    for (size_t r = 0; r < line_numbers_.size(); ++r) line_numbers_[r] = static_cast<int32_t>(r);
    for (const StageView& stage : system_.stages)
      has_groups_.push_back(stage.begin < stage.end && system_.groups->of_line()[stage.begin] >= 0);
    start_result();
  }

  // Walks the whole tree; with `tasks`, cells at depth split_depth are put there instead of being walked, and the
  // results so far are closed: part i comes before task i. Without, cells are given away as they come.
  void run_root(std::vector<Task>* tasks, std::vector<Part>* before) {
    tasks_ = tasks;
    before_ = before;
    const int64_t lines = system_.lines;
    Affine affine = take_affine(0, lines);
    root_fold_ = Fold{system_.stages.data(), lines, line_numbers_.data(), affine, 0, 0, {}};
    for (int64_t r = 0; r < lines; ++r) {
      affine.a[r] = system_.a[r], affine.b[r] = system_.b[r], affine.c[r] = system_.c[r];
      affine.p[r] = system_.error[r] + shared_.prepaid * magnitude(affine, r);
    }
    root_fold_.norms = root_norms(affine);
    Cell cell{&root_fold_, 0, affine, 0, {}, root_polygon(), 0, 0, INT64_MAX};
    if (!tasks) my_turn_ = [] { return true; };
    enter_stage(cell, 0);
    flush();
    if (!tasks && options_.cells) give_away();
  }
  // my_turn: whether all that comes before this task has been given away, so that its own cells may be.
  void run_task(const Task& task, std::function<bool()> my_turn) {
    my_turn_ = std::move(my_turn);
    on_ = task.on;
    Cell cell = task.cell;
    const Arena::Mark mark = arena_.mark();
    go_down(cell, 0);  // it was settled when it was made, and decisions count once
    arena_.release(mark);
    flush();
  }
  Part take_result() {
    Part taken{std::move(result_), std::move(cells_), true};
    start_result();
    return taken;
  }

 private:
  static constexpr int64_t kEvaluation = 16;    // roundings of evaluating a row at a point, generously
  static constexpr int64_t kWorthFolding = 32;  // later rows: fewer are evaluated as fast as they are folded
  static constexpr size_t kGivenAway = 4096;    // corners of cells: they are still in the cache then
  static constexpr double kMostKept = 0.9;      // of a stage: where bounds prune less, a fold ends

  // --- the root ---

  Polygon root_polygon() {
    const int64_t n = system_.n_corners;
    Polygon p = take_polygon(arena_, n, options_.cells);
    p.d_max = 0;
    for (int64_t i = 0; i < n; ++i) {
      const double *corner = system_.corners + 2 * i, *next = system_.corners + 2 * ((i + 1) % n);
      p.x[i] = corner[0], p.y[i] = corner[1], p.d[i] = 0;
      if (p.keys) p.keys[i] = hashed({1, 2}, static_cast<uint64_t>(i));
      RowOnPlane& row = *arena_.take<RowOnPlane>(1);
      p.edges[i] = &row;
      if (n == 2) {
        row = {1, 0, -corner[0], 0, border_row(i)};
      } else {
        row = {corner[1] - next[1], next[0] - corner[0], corner[0] * next[1] - next[0] * corner[1], 0, border_row(i)};
        const double size = std::fabs(row.a) * shared_.hs + std::fabs(row.b) * shared_.ht +
                            std::fabs(corner[0] * next[1]) + std::fabs(next[0] * corner[1]);
        row.error = 8 * kUnit * size + 0x1p-1000;  // more than underflow can lose in it and at a point
      }
    }
    return p;
  }

  // --- rows ---

  double magnitude(const Affine& x, int64_t r) const {
    return std::fabs(x.a[r]) * shared_.hs + std::fabs(x.b[r]) * shared_.ht + std::fabs(x.c[r]);
  }
  V magnitudes(const Affine& x, int64_t r) const {  // of eight rows
    return abs(load(x.a + r)) * set(shared_.hs) + abs(load(x.b + r)) * set(shared_.ht) + abs(load(x.c + r));
  }
  static Rows4 shifted(const Rows4& x, int64_t by) { return {x.a + by, x.b + by, x.c + by, x.p + by}; }
  // Memory for the rows [from, to), indexed by row.
  Affine take_affine(int64_t from, int64_t to) {
    const int64_t size = padded(to - from + kLanes);
    double* memory = arena_.take<double>(4 * size);
    for (int64_t i = 0; i < 4; ++i) std::fill(memory + i * size + (to - from), memory + (i + 1) * size, 0.0);
    memory -= from;
    return {memory, memory + size, memory + 2 * size, memory + 3 * size};
  }
  static const double* column(const StageView& stage, int64_t t) {  // indexed by row
    return stage.columns + (t - stage.begin) * stage.stride - stage.end;
  }

  // Once rows t of the cell's stage are on: A_r += C_rt A_t for the rows after it.
  void substitute(Cell& cell, const SomeRows& on) {
    const Fold& fold = *cell.fold;
    const StageView& stage = fold.stages[cell.stage];
    const int64_t reach = std::max(cell.reach, stage.extent);
    const Affine out = take_affine(stage.end, reach);
    const Affine* in = cell.reach <= stage.end ? &fold.far : &cell.affine;
    if (cell.reach > stage.end && cell.reach < stage.extent) {
      copy_rows(cell.affine, out, stage.end, cell.reach);
      copy_rows(fold.far, out, cell.reach, stage.extent);
      in = &out;
    }
    add(*in, out, stage, on);
    if (stage.extent < cell.reach) copy_rows(cell.affine, out, stage.extent, cell.reach);
    cell.affine = out, cell.reach = reach;
    cell.spent += on.n + 2, cell.operations += on.n + 2;
  }
  static void copy_rows(const Rows4& in, const Rows4& out, int64_t from, int64_t to) {
    const size_t bytes = static_cast<size_t>(to - from) * sizeof(double);
    std::memcpy(out.a + from, in.a + from, bytes), std::memcpy(out.b + from, in.b + from, bytes);
    std::memcpy(out.c + from, in.c + from, bytes), std::memcpy(out.p + from, in.p + from, bytes);
  }
  // The rows after a stage with what some of its rows give to them. Past the rows that take from them there is room,
  // and only zeros come out of it.
  void add(const Rows4& in, const Rows4& out, const StageView& stage, const SomeRows& some) const {
    add_columns<4, true>(in, out, stage.end, stage.extent, columns_of(stage, some));
  }
  static Columns columns_of(const StageView& stage, const SomeRows& some) {
    return {stage.columns - stage.begin * stage.stride - stage.end, stage.stride, some.row, some, some.n};
  }
  // The rows `t` [n], of the first N arrays.
  template <int N = 4> SomeRows gathered(const Rows4& from, const int32_t* t, int64_t n) {
    const Rows4 to = take_rows(n);
    const double* const in[4] = {from.a, from.b, from.c, from.p};
    double* const out[4] = {to.a, to.b, to.c, to.p};
    for (int j = 0; j < N; ++j)
      for (int64_t i = 0; i < n; ++i) out[j][i] = in[j][t[i]];
    return {to, n, t};
  }
  // Memory for n rows, and eight more.
  Rows4 take_rows(int64_t n) {
    const int64_t size = padded(n + kLanes);
    double* memory = arena_.take<double>(4 * size);
    return {memory, memory + size, memory + 2 * size, memory + 3 * size};
  }

  // --- signs ---

  double threshold(double a, double b, double p, double d) const {
    return (p + (std::fabs(a) + std::fabs(b)) * d) * factor_;
  }

  int exact_sign(const Polygon& polygon, int64_t vertex, int64_t line) {
    ++result_.decisions.exact;
    const int sign = exact_.sign_at(polygon.first_row(vertex).number, polygon.second_row(vertex), line, on_.data());
    result_.decisions.zeros += sign == 0;
    return sign;
  }
  // The signs of a candidate at the vertices, proven; z holds its values. Both have room for whole vectors.
  void vertex_signs(const Cell& cell, int64_t k, int8_t* signs, double* z) {
    const Polygon& polygon = cell.polygon;
    const Candidates& from = cell.candidates;
    const double a = from.a[k], b = from.b[k], size = std::fabs(a) + std::fabs(b);
    for (int64_t v = 0; v < polygon.n; v += kLanes) {
      const V x = load(polygon.x + v), y = load(polygon.y + v), d = load(polygon.d + v);
      const V value = multiply_add(set(a), x, multiply_add(set(b), y, set(from.c[k])));
      const V t = (set(from.p[k]) + set(size) * d) * set(factor_);
      const uint32_t valid = first_lanes(polygon.n - v);
      uint32_t is_above = above(value, t) & valid, is_below = above(-value, t) & valid;
      store(z + v, value);
      for (uint32_t doubtful = valid & ~(is_above | is_below); doubtful; doubtful &= doubtful - 1) {
        const uint32_t bit = doubtful & -doubtful;
        const int sign = exact_sign(polygon, v + __builtin_ctz(bit), from.line[k]);
        is_above |= sign > 0 ? bit : 0, is_below |= sign < 0 ? bit : 0;
      }
      const uint64_t bytes = spread(is_above) + spread(is_below) * 0xff;
      std::memcpy(signs + v, &bytes, sizeof bytes);
    }
  }

  // --- the walk ---

  // The cell is settled in all stages before cell.stage. It is changed on the way, here and in cut.
  void enter_stage(Cell& cell, int64_t depth) {
    const Fold& fold = *cell.fold;
    while (cell.stage < n_stages_ && fold.stages[cell.stage].begin == fold.stages[cell.stage].end)
      ++result_.regions[static_cast<size_t>(cell.stage++)];
    if (cell.stage == n_stages_) return leaf(cell.polygon);
    const StageView& stage = fold.stages[cell.stage];
    if (cell.reach <= stage.begin) {
      cell.affine = fold.far, cell.reach = stage.end, cell.spent = 0;
    } else if (cell.spent + 3 * (stage.end - stage.begin) + kEvaluation > shared_.budget) {
      const Affine before = cell.affine;
      cell.affine = take_affine(stage.begin, cell.reach);
      for (int64_t r = stage.begin; r < cell.reach; ++r) {
        cell.affine.a[r] = before.a[r], cell.affine.b[r] = before.b[r], cell.affine.c[r] = before.c[r];
        cell.affine.p[r] = before.p[r] + shared_.prepaid * magnitude(before, r);
      }
      cell.spent = 0;
    }
    if (options_.cells)
      for (int64_t i = 0; i < cell.polygon.n; ++i)
        cell.polygon.bases[i] = between(cell.polygon.keys[i], cell.polygon.keys[i + 1 == cell.polygon.n ? 0 : i + 1]);
    cell.attempt = INT64_MAX;
    cell.candidates = candidates_of(cell);
    if (fold.norms.own) cell.candidates.p = capped(cell);
    cut(cell, depth);
  }

  // Settle what is settled, then cut by the first line that crosses, and go down both sides.
  void cut(Cell& cell, int64_t depth) {
    if (shared_.progress.stop.load(std::memory_order_relaxed)) return;
    const Arena::Mark mark = arena_.mark();
    if (cell.candidates.n) has_groups(cell.stage) ? settle_groups(cell) : settle(cell);
    if (cell.candidates.n == 0) {
      ++result_.regions[static_cast<size_t>(cell.stage++)];
      enter_stage(cell, depth);
    } else {
      go_down(cell, depth);
    }
    if (!tasks_) arena_.release(mark);  // what the cells of tasks point to stays
  }
  // What is left of a settled cell's candidates crosses it.
  void go_down(Cell& cell, int64_t depth) {
    const bool last = cell.stage + 1 == n_stages_;
    if (last && !options_.cells && cell.polygon.n > 2 && !has_groups(cell.stage) && count_chords(cell)) return;
    if (tasks_ && depth >= shared_.split_depth) {
      before_->push_back(take_result());
      tasks_->push_back({cell, on_});
      return;
    }
    if (!last && options_.fold_ahead) refold(cell);
    has_groups(cell.stage) ? split_group(cell, depth) : split(cell, depth);
  }

  void split(const Cell& cell, int64_t depth) {
    const Candidates& all = cell.candidates;
    const Polygon& polygon = cell.polygon;
    int8_t* signs = arena_.take<int8_t>(padded(polygon.n));
    double* z = arena_.take<double>(padded(polygon.n));
    vertex_signs(cell, 0, signs, z);
    const int64_t number = all.line[0];
    RowOnPlane* line = arena_.take<RowOnPlane>(1);
    *line = {all.a[0], all.b[0], all.c[0], all.p[0], number};
    Polygon parts[2];
    cut_in_two(arena_, polygon, line, signs, parts[0], parts[1],
               [&](int64_t i) { return known_crossing(polygon, i, *line, z[i], z[i + 1 == polygon.n ? 0 : i + 1]); });
    const Arena::Mark mark = arena_.mark();
    const int first = polygon.n == 2 && signs[0] < 0 ? 1 : 0;  // segments from their start to their end
    for (const int side : {first, 1 - first}) {
      Cell child = cell;
      child.candidates = without_first(all, 1);
      child.polygon = parts[side];
      on_[static_cast<size_t>(number)] = side == 0;
      if (side == 0 && cell.stage + 1 < n_stages_) substitute(child, {all, 1, all.row});
      cut(child, depth + 1);
      if (!tasks_) arena_.release(mark);
    }
  }

  // All rows of its stage.
  Candidates candidates_of(const Cell& cell) const {
    const StageView& stage = cell.fold->stages[cell.stage];
    const int64_t from = stage.begin;
    return {{shifted(cell.affine, from), stage.end - from, line_numbers_.data() + from}, cell.fold->line + from};
  }
  static Candidates without_first(const Candidates& all, int64_t n) {
    return {{shifted(all, n), all.n - n, all.row + n}, all.line + n};
  }

  // Nearly equal lines cross where float64 values are noise; coordinates worth having then come from the integers.
  NewVertex known_crossing(const Polygon& polygon, int64_t i, const RowOnPlane& line, double z_i, double z_next) {
    NewVertex v = crossing(polygon, i, line, z_i, z_next);
    if (!options_.cells || v.d <= shared_.blur) return v;
    const int64_t edge = polygon.n == 2 ? kAxisRow : polygon.edges[i]->number;
    const std::array<double, 2> exact = exact_.crossing(edge, line.number, on_.data());
    v.x = exact[0], v.y = exact[1];
    v.d = 8 * kUnit * std::max(std::fabs(v.x), std::fabs(v.y)) + 0x1p-1070;  // see BigInt::ratio
    return v;
  }

  // Candidates that do not cross the cell are settled: the others stay, and what is on is substituted.
  void settle(Cell& cell) {
    const Candidates& all = cell.candidates;
    const Polygon& polygon = cell.polygon;
    const Arena::Mark mark = arena_.mark();
    const int64_t room = padded(all.n + kLanes);
    int32_t* const numbers = arena_.take<int32_t>(3 * room);
    SomeRows on{take_rows(all.n), 0, numbers};
    Candidates left{{take_rows(all.n), 0, numbers + room}, numbers + 2 * room};
    const bool needed = options_.cells != nullptr || cell.stage + 1 < n_stages_;
    result_.decisions.filter += all.n * polygon.n;
    for (int64_t i = 0; i < all.n; i += kLanes) {
      const V a = load(all.a + i), b = load(all.b + i), c = load(all.c + i), p = load(all.p + i);
      const V t = (p + (abs(a) + abs(b)) * set(polygon.d_max)) * set(factor_);
      V low = set(INFINITY), high = set(-INFINITY);
      for (int64_t v = 0; v < polygon.n; ++v) {
        const V z = multiply_add(a, set(polygon.x[v]), multiply_add(b, set(polygon.y[v]), c));
        low = min(z, low), high = max(z, high);
      }
      const uint32_t valid = first_lanes(all.n - i);
      uint32_t is_on = above(low, t) & valid, is_off = above(-high, t) & valid;
      uint32_t crosses = above(high, t) & above(-low, t) & valid;
      uint32_t doubtful = valid & ~(crosses | is_on | is_off);
      for (; doubtful; doubtful &= doubtful - 1) {
        const int bit = __builtin_ctz(doubtful);
        const int sign = settled_sign(cell, i + bit);
        (sign == 0 ? crosses : sign > 0 ? is_on : is_off) |= 1u << bit;
      }
      if (needed)  // those that cross are written later
        for (int64_t k = i; k < std::min(i + kLanes, all.n); ++k)
          on_[static_cast<size_t>(all.line[k])] = is_on >> (k - i) & 1;
      put(numbers + on.n, all.row + i, is_on);
      on.n = put_rows(on, on.n, a, b, c, p, is_on);
      put(numbers + room + left.n, all.row + i, crosses), put(numbers + 2 * room + left.n, all.line + i, crosses);
      left.n = put_rows(left, left.n, a, b, c, p, crosses);
    }
    if (left.n == all.n) return arena_.release(mark);  // what a walk along many lines holds must not grow by its square
    if (on.n && cell.stage + 1 < n_stages_) substitute(cell, on);
    cell.candidates = left;
  }
  // Some of eight rows, from row n on; returns their end.
  static int64_t put_rows(const Rows4& to, int64_t n, V a, V b, V c, V p, uint32_t bits) {
    put(to.a + n, a, bits), put(to.b + n, b, bits), put(to.c + n, c, bits);
    return put(to.p + n, p, bits) - to.p;
  }
  // 0 if the candidate crosses the cell, else its side; identically 0 is off.
  [[gnu::noinline]] int settled_sign(const Cell& cell, int64_t k) {
    const Arena::Mark mark = arena_.mark();
    int8_t* signs = arena_.take<int8_t>(padded(cell.polygon.n));
    double* z = arena_.take<double>(padded(cell.polygon.n));
    vertex_signs(cell, k, signs, z);
    bool some_above = false, some_below = false;
    for (int64_t v = 0; v < cell.polygon.n; ++v) some_above |= signs[v] > 0, some_below |= signs[v] < 0;
    arena_.release(mark);
    return some_above && some_below ? 0 : some_above ? 1 : -1;
  }

#include "chords.inl"
#include "norms.inl"
#include "refold.inl"
// After the types of refold.inl:
#include "compact.inl"
#include "groups.inl"

  // --- results ---

  void start_result() {
    result_ = EngineResult();
    result_.regions.assign(system_.stages.size(), 0);
    cells_.clear();
    asked_ = 0;
  }
  void give_away() {
    options_.cells->add(cells_);
    cells_.clear();
    asked_ = 0;
  }
  void leaf(const Polygon& polygon) {
    ++unreported_;
    if (options_.cells) {
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
      const size_t bytes = on_.size() / 8, at = cells.patterns.size();
      cells.patterns.resize(at + bytes);
      pack(on_.data(), static_cast<int64_t>(on_.size()), cells.patterns.data() + at);
      unreported_bytes_ += static_cast<int64_t>(bytes) + 8 + 36 * polygon.n;
      if (cells.keys.size() >= asked_ + kGivenAway) {
        asked_ = cells.keys.size();
        if (my_turn_ && my_turn_()) give_away();
      }
    }
    if (unreported_ >= 1024) flush();
  }
  void flush() {
    EngineProgress& progress = shared_.progress;
    const int64_t regions = progress.regions += unreported_, bytes = progress.bytes += unreported_bytes_;
    if ((options_.max_regions >= 0 && regions > options_.max_regions) ||
        (options_.max_bytes >= 0 && bytes > options_.max_bytes))
      progress.stop = true;
    unreported_ = unreported_bytes_ = 0;
  }

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
