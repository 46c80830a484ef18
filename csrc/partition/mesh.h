// csrc/partition/mesh.h -- cells that share points become a mesh: each point once, each edge once with its cells.
#pragma once
#include "system.h"

namespace pylinregion {

// Numbers keys from 0 in the order of their first appearance. Open addressing; a place holds some bits of the key, so
// that nearly all comparisons end there.
class KeyTable {
 public:
  void prefetch(const VertexKey& key) const { __builtin_prefetch(&places_[key.low & mask_]); }
  int32_t number(const VertexKey& key);
  size_t size() const { return keys_.size(); }

 private:
  struct Place {
    uint32_t tag;
    int32_t number;
  };
  Place& find(const VertexKey& key);
  void grow();

  Array<Place> places_ = Array<Place>(64, {0, -1});
  Array<VertexKey> keys_;
  size_t mask_ = 63;
};

// Points are the same if their keys are; nothing is decided by coordinates.
class Mesh final : public CellSink {
 public:
  // Throws std::runtime_error if an edge has more than two cells (the cells are then no partition), std::length_error
  // if the cells have 2^31 corners or more.
  void add(const CellList& cells) override;

  Array<int64_t> offsets = Array<int64_t>(1, 0);  // [cells + 1] into indices
  Array<int32_t> indices;                         // vertex numbers, cell by cell
  Array<uint8_t> patterns;                        // [cells, pattern_bytes]
  Array<double> vertices;                         // [V, 2]
  Array<int32_t> edges;                           // [E, 2] vertex numbers
  Array<int32_t> edge_cells;                      // [E, 2]; -1: outside
  Array<int32_t> edge_rows;                       // [E]: a row (system.h), -1 on the slice's border

 private:
  void number_vertices(const CellList& cells);
  void pair_edges(const CellList& cells, int64_t first_cell);

  KeyTable keys_;
  Array<int32_t> first_, next_;  // [V], [E]: an edge whose lower end a vertex is, and from each the next; -1: none
};

// Cells as they come: those of a segment, or of a part of the walk.
class KeptCells final : public CellSink {
 public:
  void add(const CellList& cells) override;
  CellList all;
};

}  // namespace pylinregion
