// csrc/partition/warp_tasks.h -- cells that a warp puts off, as tasks for others: copied with all that they point to,
// but what is persistent, into memory that stays until they are done.
#pragma once
#include "engine.h"
#include "walked_slices.h"

namespace pylinregion {
namespace {

struct Answer {
  Question question;
  Said said;
};
// Asked for a task that is put off until then.
struct Request {
  int64_t task;  // among those that are put off
  Question question;
};

// Where a walk begins, or goes on. In memory of the device are cell, on [lines, padded] and answers [n_answers].
struct WarpTask {
  int64_t slice;
  const Cell* cell;
  const uint8_t* on;
  const Answer* answers;
  int32_t n_answers;
  int32_t next;  // see Next
};

// Memory that stays while there are tasks: folds that are made in it are not copied with them.
struct Persistent {
  const char *begin, *end;
  PLR_ENGINE bool has(const void* what) const {
    const char* const at = static_cast<const char*>(what);
    return begin <= at && at < end;
  }
};

class CellCopier {
 public:
  PLR_ENGINE CellCopier(const Persistent& persistent, int64_t stages, int64_t lines)
      : persistent_(persistent), n_stages_(stages), lines_(lines) {}

  // At most so many are taken by copy.
  PLR_STEP int64_t bytes(const Cell& cell) const {
    const int64_t n = cell.polygon.n;
    int64_t sum = room<Cell>(1) + room<uint8_t>(padded(lines_));
    sum += room<double>(3 * padded(n)) + room<const RowOnPlane*>(n) + room<VertexKey>(2 * n) + room<RowOnPlane>(n);
    sum += bytes_of_forms(cell.unsettled.n) + 2 * room<int32_t>(padded(cell.unsettled.n + kLanes));
    if (later(cell) > 0) sum += bytes_of_forms(later(cell));
    const Fold& fold = *cell.fold;
    if (persistent_.has(&fold)) return sum;
    sum += room<Fold>(1) + room<StageView>(n_stages_) + room<int32_t>(fold.rows + kLanes) + room<double>(4 * n_stages_);
    for (int64_t l = 0; l < n_stages_; ++l)
      if (!persistent_.has(fold.stages[l].columns)) sum += room<double>(size_of(fold.stages[l]));
    return sum;
  }

  PLR_STEP void copy_cell(const Cell& from, const uint8_t* on, Arena& to, WarpTask& task) const {
    Cell cell = from;
    cell.polygon = copied(from.polygon, to);
    const int64_t n = from.unsettled.n, size = padded(n + kLanes);
    static_cast<Forms&>(cell.unsettled) = copied(from.unsettled, n, to);
    int32_t* const numbers = to.take<int32_t>(2 * size);
    copy(from.unsettled.row, n, numbers), copy(from.unsettled.line, n, numbers + size);
    fill(numbers + n, size - n, int32_t{0}), fill(numbers + size + n, size - n, int32_t{0});
    cell.unsettled.row = numbers, cell.unsettled.line = numbers + size;
    const int64_t first = from.fold->stages[from.stage].end;
    if (later(from) > 0) cell.forms = {copied(from.forms.from(first), later(from), to), first};
    if (!persistent_.has(from.fold)) cell.fold = copied(*from.fold, to);
    Cell* const kept = to.take<Cell>(1);
    *kept = cell;
    uint8_t* const on_kept = to.take<uint8_t>(padded(lines_));
    copy(on, padded(lines_), on_kept);
    task.cell = kept, task.on = on_kept;
  }

 private:
  template <class T> PLR_ENGINE static int64_t room(int64_t n) {
    return (n * static_cast<int64_t>(sizeof(T)) + 63) / 64 * 64;
  }
  PLR_ENGINE static int64_t bytes_of_forms(int64_t n) { return room<double>(4 * padded(n + kLanes)); }
  PLR_ENGINE static int64_t size_of(const StageView& stage) { return (stage.end - stage.begin) * stage.stride; }
  // Rows of later stages that the cell has forms of its own of.
  PLR_ENGINE static int64_t later(const Cell& cell) { return cell.reach - cell.fold->stages[cell.stage].end; }

  // With zeros behind them, as Engine::take_row_forms has them.
  PLR_ENGINE Forms copied(const Forms& from, int64_t n, Arena& to) const {
    const int64_t size = padded(n + kLanes);
    double* const memory = to.take<double>(4 * size);
    const Forms out{memory, memory + size, memory + 2 * size, memory + 3 * size};
    copy_forms(from, out, n);
    for (double* of : {out.a, out.b, out.c, out.p}) fill(of + n, size - n, 0.0);
    return out;
  }
  PLR_ENGINE Polygon copied(const Polygon& from, Arena& to) const {
    Polygon out = take_polygon(to, from.n, from.keys != nullptr);
    const int64_t n = from.n, size = padded(n);
    out.d_max = from.d_max;
    copy(from.x, n, out.x), copy(from.y, n, out.y), copy(from.d, n, out.d);
    for (double* of : {out.x, out.y, out.d}) fill(of + n, size - n, 0.0);
    if (from.keys) copy(from.keys, n, out.keys), copy(from.bases, n, out.bases);
    RowOnPlane* const rows = to.take<RowOnPlane>(n);
    each(n, [&](int64_t i) { rows[i] = *from.edges[i], out.edges[i] = rows + i; });
    return out;
  }
  PLR_ENGINE const Fold* copied(const Fold& from, Arena& to) const {
    StageView* const stages = to.take<StageView>(n_stages_);
    for (int64_t l = 0; l < n_stages_; ++l) {
      StageView stage = from.stages[l];
      if (stage.columns && !persistent_.has(stage.columns)) {
        double* const columns = to.take<double>(size_of(stage));
        copy(stage.columns, size_of(stage), columns);
        stage.columns = columns;
      }
      put(stages[l], stage);
    }
    int32_t* const line = to.take<int32_t>(from.rows + kLanes);
    copy(from.line, from.rows, line), fill(line + from.rows, kLanes, int32_t{0});
    Fold* const fold = to.take<Fold>(1);
    Fold out = from;
    out.stages = stages, out.line = line;
    if (from.norms.own) {
      double* const norms = to.take<double>(4 * n_stages_);
      out.norms = {norms, norms + n_stages_, norms + 2 * n_stages_, norms + 3 * n_stages_};
      const Norms& old = from.norms;
      copy(old.own, n_stages_, out.norms.own), copy(old.size, n_stages_, out.norms.size);
      copy(old.carried, n_stages_, out.norms.carried), copy(old.rounded, n_stages_, out.norms.rounded);
    }
    put(*fold, out);
    return fold;
  }

  const Persistent persistent_;
  const int64_t n_stages_, lines_;
};

}  // namespace
}  // namespace pylinregion
