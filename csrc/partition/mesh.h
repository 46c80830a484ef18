// csrc/partition/mesh.h -- cells that share points become a mesh: each point once, each edge once with its cells.
#pragma once
#include "system.h"

namespace pylinregion {

struct Mesh {
  Array<double> vertices;     // [V, 2]
  Array<int32_t> indices;     // [sum of cell sizes] vertex numbers, cell by cell
  Array<int32_t> edges;       // [E, 2] vertex numbers
  Array<int32_t> edge_cells;  // [E, 2]; -1: outside
  Array<int32_t> edge_rows;   // [E]: a row (exact_rows.h), -1 on the slice's border
};

// Points are the same if their keys are; nothing is decided by coordinates.
// Throws std::runtime_error if an edge has more than two cells (the cells are then no partition), std::length_error
// if the cells have 2^31 corners or more.
// With `stop` set it ends early, and what it gives is of no use.
Mesh mesh_of(const CellList& cells, const std::atomic<bool>& stop);

}  // namespace pylinregion
