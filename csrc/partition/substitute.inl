// csrc/partition/substitute.inl -- Engine: what lines that are on give to the rows of later stages: docs/exactness.md,
// 4.
#pragma once
#include "engine.h"

namespace pylinregion {
namespace {

// Once rows t of the cell's stage are on: A_r += C_rt A_t for the rows after it.
PLR_STEP void Engine::substitute(Cell& cell, const SomeRows& on) {
  const Fold& fold = *cell.fold;
  const StageView& stage = fold.stages[cell.stage];
  const int64_t reach = std::max(cell.reach, stage.extent);
  const RowForms out = take_row_forms(stage.end, reach);
  RowForms in = cell.reach <= stage.end ? fold.far : cell.forms;
  if (cell.reach > stage.end && cell.reach < stage.extent) {
    copy_forms(cell.forms.from(stage.end), out.from(stage.end), cell.reach - stage.end);
    copy_forms(fold.far.from(cell.reach), out.from(cell.reach), stage.extent - cell.reach);
    in = out;
  }
  // Past the rows that take from the stage there is room, and only zeros come out of it.
  add_columns<4, true>(in.from(stage.end).arrays(), out.forms.arrays(), {&stage, on.row, on.arrays(), on.n});
  if (stage.extent < cell.reach)
    copy_forms(cell.forms.from(stage.extent), out.from(stage.extent), cell.reach - stage.extent);
  cell.forms = out, cell.reach = reach;
  cell.spent += on.n + 2, cell.operations += on.n + 2;
}

// The budget of roundings begins again, in the rows of the cell's stage and those after it.
PLR_STEP void Engine::prepay(Cell& cell) {
  const int64_t begin = cell.fold->stages[cell.stage].begin, n = cell.reach - begin;
  const Forms before = cell.forms.from(begin);
  cell.forms = take_row_forms(begin, cell.reach);
  const Forms& now = cell.forms.forms;
  each(n, [&](int64_t i) {
    now.a[i] = before.a[i], now.b[i] = before.b[i], now.c[i] = before.c[i];
    now.p[i] = before.p[i] + shared_.prepaid * magnitude(before, i);
  });
  cell.spent = 0;
}

}  // namespace
}  // namespace pylinregion
