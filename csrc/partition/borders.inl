// csrc/partition/borders.inl -- Engine: what lies along the borders of the polygon. Tiles of a slice are joined by that
// (docs/exactness.md, 5.4).
#pragma once
#include "engine.h"

namespace pylinregion {
namespace {

// A cell after a stage: the borders that it lies along.
PLR_ENGINE void Engine::see_pieces(const Polygon& polygon, int64_t stage) {
  for (int64_t i = 0; i < polygon.n; ++i) {
    const int64_t row = polygon.edges[i]->number;
    if (is_border(row)) add_to(tally_.pieces[stage * system_.n_corners + border_of(row)], 1);
  }
}

// The signs of a row at the vertices: whether it is 0 along a border or at a corner, and not all over the cell.
PLR_ENGINE void Engine::see_zeros(const Polygon& polygon, const int8_t* signs) {
  int64_t zeros = 0;
  for (int64_t i = 0; i < polygon.n; ++i) zeros += signs[i] == 0;
  if (zeros == polygon.n) return;
  for (int64_t i = 0, before = polygon.n - 1; i < polygon.n; before = i++) {
    const int64_t row = polygon.edges[i]->number;
    if (signs[i] != 0 || !is_border(row)) continue;
    const int64_t border = border_of(row);
    if (signs[i + 1 == polygon.n ? 0 : i + 1] == 0) add_to(tally_.zero_along[border], 1);
    if (is_border(polygon.edges[before]->number)) add_to(tally_.zero_at[border], 1);
  }
}

}  // namespace
}  // namespace pylinregion
