// csrc/partition/mesh.cpp -- points by a hash table of their keys, edges by a list at their lower end: cells come in
// the order of a depth-first walk, so that what is looked up together was made together.
#include "mesh.h"

#include <algorithm>
#include <climits>
#include <stdexcept>
#include <string>

namespace pylinregion {
namespace {

template <class T> void append(Array<T>& to, const Array<T>& from) { to.insert(to.end(), from.begin(), from.end()); }

void append_offsets(Array<int64_t>& to, const Array<int64_t>& from) {
  const int64_t shift = to.back();
  for (size_t i = 1; i < from.size(); ++i) to.push_back(from[i] + shift);
}
}  // namespace

int32_t KeyTable::number(const VertexKey& key) {
  if (2 * keys_.size() >= places_.size()) grow();
  Place& place = find(key);
  if (place.number < 0) {
    place = {static_cast<uint32_t>(key.high), static_cast<int32_t>(keys_.size())};
    keys_.push_back(key);
  }
  return place.number;
}

KeyTable::Place& KeyTable::find(const VertexKey& key) {
  for (size_t at = key.low & mask_;; at = (at + 1) & mask_) {
    Place& place = places_[at];
    if (place.number < 0 ||
        (place.tag == static_cast<uint32_t>(key.high) && keys_[static_cast<size_t>(place.number)] == key))
      return place;
  }
}

void KeyTable::grow() {
  constexpr size_t kAhead = 16;
  places_.assign(4 * places_.size(), {0, -1});
  mask_ = places_.size() - 1;
  for (size_t i = 0; i < keys_.size(); ++i) {
    if (i + kAhead < keys_.size()) prefetch(keys_[i + kAhead]);
    size_t at = keys_[i].low & mask_;
    while (places_[at].number >= 0) at = (at + 1) & mask_;
    places_[at] = {static_cast<uint32_t>(keys_[i].high), static_cast<int32_t>(i)};
  }
}

void Mesh::add(const CellList& cells) {
  if (indices.size() + cells.keys.size() >= static_cast<size_t>(INT_MAX))
    throw std::length_error("too many cells for one mesh");
  const int64_t first_cell = static_cast<int64_t>(offsets.size()) - 1;
  number_vertices(cells);
  append_offsets(offsets, cells.offsets);
  append(patterns, cells.patterns);
  pair_edges(cells, first_cell);
}

void Mesh::number_vertices(const CellList& cells) {
  constexpr size_t kAhead = 12;
  const size_t corners = cells.keys.size(), from = indices.size();
  indices.resize(from + corners);
  for (size_t i = 0; i < corners; ++i) {
    if (i + kAhead < corners) keys_.prefetch(cells.keys[i + kAhead]);
    const size_t before = keys_.size();
    indices[from + i] = keys_.number(cells.keys[i]);
    if (keys_.size() == before) continue;
    vertices.push_back(cells.xy[2 * i]);
    vertices.push_back(cells.xy[2 * i + 1]);
    first_.push_back(-1);
  }
}

void Mesh::pair_edges(const CellList& cells, int64_t first_cell) {
  const int32_t* corner = indices.data() + offsets[static_cast<size_t>(first_cell)];
  for (size_t c = 0; c + 1 < cells.offsets.size(); ++c) {
    const int64_t begin = cells.offsets[c], end = cells.offsets[c + 1];
    const int32_t cell = static_cast<int32_t>(first_cell + static_cast<int64_t>(c));
    for (int64_t i = begin; i < end; ++i) {
      const int32_t p = corner[i], q = corner[i + 1 == end ? begin : i + 1];
      const int32_t low = std::min(p, q), high = std::max(p, q);
      int32_t edge = first_[static_cast<size_t>(low)];
      while (edge >= 0 && edges[2 * static_cast<size_t>(edge) + 1] != high) edge = next_[static_cast<size_t>(edge)];
      if (edge < 0) {
        next_.push_back(first_[static_cast<size_t>(low)]);
        first_[static_cast<size_t>(low)] = static_cast<int32_t>(edge_rows.size());
        edges.push_back(low), edges.push_back(high);
        edge_cells.push_back(cell), edge_cells.push_back(-1);
        edge_rows.push_back(std::max(cells.rows[static_cast<size_t>(i)], -1));
        continue;
      }
      int32_t& other = edge_cells[2 * static_cast<size_t>(edge) + 1];
      if (other >= 0) throw std::runtime_error("edge " + std::to_string(edge) + " has more than two cells");
      other = cell;
    }
  }
}

void KeptCells::add(const CellList& cells) {
  append_offsets(all.offsets, cells.offsets);
  append(all.xy, cells.xy);
  append(all.keys, cells.keys);
  append(all.rows, cells.rows);
  append(all.patterns, cells.patterns);
}

}  // namespace pylinregion
