// csrc/partition/mesh.cpp -- two hash tables with open addressing: points by key, edges by their ends.
#include "mesh.h"

#include <stdexcept>
#include <string>

namespace pylinregion {
namespace {

size_t table_size(size_t entries) {
  size_t size = 64;
  while (size < 2 * entries) size *= 2;
  return size;
}
uint64_t scattered(uint64_t x) {
  x *= 0x9e3779b97f4a7c15u;
  return x ^ (x >> 32);
}
}  // namespace

Mesh mesh_of(const CellList& cells) {
  Mesh mesh;
  const size_t corners = cells.keys.size();
  mesh.indices.resize(corners);
  mesh.vertices.reserve(corners / 3);
  std::vector<int64_t> table(table_size(corners / 2 + 64), -1);
  std::vector<VertexKey> keys;
  keys.reserve(corners / 3);
  const auto rehash = [&] {
    table.assign(table.size() * 2, -1);
    for (size_t v = 0; v < keys.size(); ++v) {
      size_t at = keys[v].low & (table.size() - 1);
      while (table[at] >= 0) at = (at + 1) & (table.size() - 1);
      table[at] = static_cast<int64_t>(v);
    }
  };
  for (size_t i = 0; i < corners; ++i) {
    if (2 * keys.size() > table.size()) rehash();
    const VertexKey key = cells.keys[i];
    size_t at = key.low & (table.size() - 1);
    while (table[at] >= 0 && !(keys[static_cast<size_t>(table[at])] == key)) at = (at + 1) & (table.size() - 1);
    if (table[at] < 0) {
      table[at] = static_cast<int64_t>(keys.size());
      keys.push_back(key);
      mesh.vertices.push_back(cells.xy[2 * i]);
      mesh.vertices.push_back(cells.xy[2 * i + 1]);
    }
    mesh.indices[i] = table[at];
  }
  keys = {};

  const size_t vertices = mesh.vertices.size() / 2;
  std::vector<int64_t> edge_table(table_size(corners / 2 + vertices), -1);
  for (int64_t cell = 0; cell < cells.cells(); ++cell) {
    const int64_t begin = cells.offsets[static_cast<size_t>(cell)], end = cells.offsets[static_cast<size_t>(cell) + 1];
    for (int64_t i = begin; i < end; ++i) {
      const int64_t p = mesh.indices[static_cast<size_t>(i)];
      const int64_t q = mesh.indices[static_cast<size_t>(i + 1 == end ? begin : i + 1)];
      const int64_t low = p < q ? p : q, high = p < q ? q : p;
      size_t at =
          scattered(static_cast<uint64_t>(low) * vertices + static_cast<uint64_t>(high)) & (edge_table.size() - 1);
      while (edge_table[at] >= 0 && (mesh.edges[static_cast<size_t>(2 * edge_table[at])] != low ||
                                     mesh.edges[static_cast<size_t>(2 * edge_table[at] + 1)] != high))
        at = (at + 1) & (edge_table.size() - 1);
      if (edge_table[at] < 0) {
        edge_table[at] = static_cast<int64_t>(mesh.edge_rows.size());
        mesh.edges.push_back(low), mesh.edges.push_back(high);
        mesh.edge_cells.push_back(cell), mesh.edge_cells.push_back(-1);
        const int32_t row = cells.rows[static_cast<size_t>(i)];
        mesh.edge_rows.push_back(row < 0 ? -1 : row);
        if (4 * mesh.edge_rows.size() > 3 * edge_table.size())
          throw std::runtime_error("more edges than a planar partition of these cells can have");
        continue;
      }
      int64_t& other = mesh.edge_cells[static_cast<size_t>(2 * edge_table[at] + 1)];
      if (other >= 0) throw std::runtime_error("edge " + std::to_string(edge_table[at]) + " has more than two cells");
      other = cell;
    }
  }
  return mesh;
}

}  // namespace pylinregion
