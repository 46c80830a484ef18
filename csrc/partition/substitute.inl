// csrc/partition/substitute.inl -- (Engine) what lines that are on give to the rows after them.
#pragma once
#include "engine.h"

namespace pylinregion {
namespace {

// Once rows t of the cell's stage are on: A_r += C_rt A_t for the rows after it.
inline void Engine::substitute(Cell& cell, const SomeRows& on) {
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

// The rows after a stage with what some of its rows give to them. Past the rows that take from them there is room,
// and only zeros come out of it.
inline void Engine::add(const Rows4& in, const Rows4& out, const StageView& stage, const SomeRows& some) const {
  add_columns<4, true>(in, out, stage.end, stage.extent, columns_of(stage, some));
}
inline Columns Engine::columns_of(const StageView& stage, const SomeRows& some) {
  return {stage.columns - stage.begin * stage.stride - stage.end, stage.stride, some.row, some, some.n};
}

}  // namespace
}  // namespace pylinregion
