// csrc/partition/mesh.cpp -- points by a hash table of their keys, edges by a list at their lower end: cells come in
// the order of a depth-first walk, so that what is looked up together was made together.
#include "mesh.h"

#include <algorithm>
#include <climits>
#include <stdexcept>
#include <string>

namespace pylinregion {
namespace {

// Numbers keys from 0 in the order of their first appearance. Open addressing; a place holds some bits of the key, so
// that nearly all comparisons end there.
class KeyTable {
 public:
  explicit KeyTable(size_t expected) { resize(4 * expected + 64); }

  void prefetch(const VertexKey& key) const { __builtin_prefetch(&places_[key.low & mask_]); }
  int32_t number(const VertexKey& key) {
    if (2 * keys_.size() >= places_.size()) resize(2 * places_.size());
    Place& place = find(key);
    if (place.number < 0) {
      place = {static_cast<uint32_t>(key.high), static_cast<int32_t>(keys_.size())};
      keys_.push_back(key);
    }
    return place.number;
  }
  size_t size() const { return keys_.size(); }

 private:
  struct Place {
    uint32_t tag;
    int32_t number;
  };
  Place& find(const VertexKey& key) {
    for (size_t at = key.low & mask_;; at = (at + 1) & mask_) {
      Place& place = places_[at];
      if (place.number < 0 ||
          (place.tag == static_cast<uint32_t>(key.high) && keys_[static_cast<size_t>(place.number)] == key))
        return place;
    }
  }
  void resize(size_t least) {
    size_t size = 64;
    while (size < least) size *= 2;
    places_.assign(size, {0, -1});
    mask_ = size - 1;
    for (size_t i = 0; i < keys_.size(); ++i)
      find(keys_[i]) = {static_cast<uint32_t>(keys_[i].high), static_cast<int32_t>(i)};
  }

  Array<Place> places_;
  Array<VertexKey> keys_;
  size_t mask_ = 0;
};

void number_vertices(const CellList& cells, Mesh& mesh, const std::atomic<bool>& stop) {
  constexpr size_t kAhead = 12;
  const size_t corners = cells.keys.size();
  mesh.indices.resize(corners);
  mesh.vertices.reserve(corners / 2 + 64);
  KeyTable table(corners / 4);
  for (size_t i = 0; i < corners; ++i) {
    if (i % 65536 == 0 && stop) return;
    if (i + kAhead < corners) table.prefetch(cells.keys[i + kAhead]);
    const size_t before = table.size();
    mesh.indices[i] = table.number(cells.keys[i]);
    if (table.size() == before) continue;
    mesh.vertices.push_back(cells.xy[2 * i]);
    mesh.vertices.push_back(cells.xy[2 * i + 1]);
  }
}

void pair_edges(const CellList& cells, Mesh& mesh, const std::atomic<bool>& stop) {
  const size_t vertices = mesh.vertices.size() / 2, corners = mesh.indices.size();
  // Of the edges whose lower end a vertex is: the first one, and from each the next.
  Array<int32_t> first(vertices, -1), next;
  next.reserve(corners / 2 + 64);
  mesh.edge_rows.reserve(corners / 2 + 64);
  mesh.edges.reserve(corners + 128);
  mesh.edge_cells.reserve(corners + 128);
  for (int64_t cell = 0; cell < cells.cells(); ++cell) {
    if (cell % 16384 == 0 && stop) return;
    const int64_t begin = cells.offsets[static_cast<size_t>(cell)], end = cells.offsets[static_cast<size_t>(cell) + 1];
    for (int64_t i = begin; i < end; ++i) {
      const int32_t p = mesh.indices[static_cast<size_t>(i)];
      const int32_t q = mesh.indices[static_cast<size_t>(i + 1 == end ? begin : i + 1)];
      const int32_t low = std::min(p, q), high = std::max(p, q);
      int32_t edge = first[static_cast<size_t>(low)];
      while (edge >= 0 && mesh.edges[2 * static_cast<size_t>(edge) + 1] != high) edge = next[static_cast<size_t>(edge)];
      if (edge < 0) {
        next.push_back(first[static_cast<size_t>(low)]);
        first[static_cast<size_t>(low)] = static_cast<int32_t>(mesh.edge_rows.size());
        mesh.edges.push_back(low), mesh.edges.push_back(high);
        mesh.edge_cells.push_back(static_cast<int32_t>(cell)), mesh.edge_cells.push_back(-1);
        mesh.edge_rows.push_back(std::max(cells.rows[static_cast<size_t>(i)], -1));
        continue;
      }
      int32_t& other = mesh.edge_cells[2 * static_cast<size_t>(edge) + 1];
      if (other >= 0) throw std::runtime_error("edge " + std::to_string(edge) + " has more than two cells");
      other = static_cast<int32_t>(cell);
    }
  }
}
}  // namespace

Mesh mesh_of(const CellList& cells, const std::atomic<bool>& stop) {
  if (cells.keys.size() >= static_cast<size_t>(INT_MAX)) throw std::length_error("too many cells for one mesh");
  Mesh mesh;
  number_vertices(cells, mesh, stop);
  pair_edges(cells, mesh, stop);
  return mesh;
}

}  // namespace pylinregion
