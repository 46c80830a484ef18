// csrc/partition/geometry.h -- convex polygons whose edges know the rows they lie on, and how well vertices are known.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>

#include "../rounding.h"
#include "arena.h"
#include "lanes.h"
#include "system.h"

namespace pylinregion {
namespace {

// An affine function a s + b t + c; |function - the exact one| <= error everywhere on the slice's polygon.
struct RowOnPlane {
  double a, b, c, error;
  int64_t number;  // a line of the network, or a border (system.h)
};

// Vertex i lies on edges i - 1 and i. A segment has two vertices, each on its own row and on the axis t = 0; edge i is
// then the row of vertex i.
struct Polygon {
  int64_t n;
  double *x, *y, *d;  // |x - exact|, |y - exact| <= d; with room for whole vectors
  double d_max;
  const RowOnPlane** edges;
  VertexKey* keys;   // of the vertices; null where cells are only counted
  VertexKey* bases;  // of each edge: the key of the whole edge that it lies on, see key_on

  PLR_ENGINE const RowOnPlane& first_row(int64_t i) const { return *edges[n == 2 ? i : i ? i - 1 : n - 1]; }
  PLR_ENGINE int64_t second_row(int64_t i) const { return n == 2 ? -1 : edges[i]->number; }  // -1: the axis
};

PLR_ENGINE Polygon take_polygon(Arena& arena, int64_t n, bool keys) {
  Polygon p{};
  p.n = n;
  const int64_t size = padded(n);
  p.x = arena.take<double>(3 * size);
  p.y = p.x + size;
  p.d = p.y + size;
  p.edges = arena.take<const RowOnPlane*>(n);
  p.keys = keys ? arena.take<VertexKey>(2 * n) : nullptr;
  p.bases = keys ? p.keys + n : nullptr;
  return p;
}

PLR_ENGINE uint64_t mixed(uint64_t x) {  // splitmix64's finaliser
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}
PLR_ENGINE VertexKey hashed(VertexKey a, uint64_t b) {
  return {mixed(a.high * 0x9e3779b97f4a7c15u + mixed(b + 0x632be59bd9b4e019u)),
          mixed(a.low * 0xd1342543de82ef95u ^ mixed(b * 0xda942042e4dd58b5u + 1))};
}
// Of an edge, from its ends: the same from both sides. Keys of points are mixed well, so sums of two are as good.
PLR_ENGINE VertexKey between(VertexKey a, VertexKey b) { return {a.high + b.high, a.low + b.low}; }
// Where a line cuts an edge. Lines of one stage cut in ascending order, so where several meet, the least names the
// point, whichever cell it is seen from; and a line cuts an edge that is whole for its stage at most once.
PLR_ENGINE VertexKey key_on(VertexKey edge, int64_t line) { return hashed(edge, static_cast<uint64_t>(line) + 1); }

// At the begin of a stage, which cuts whole edges.
PLR_ENGINE void name_edges(const Polygon& p) {
  each(p.n, [&](int64_t i) { p.bases[i] = between(p.keys[i], p.keys[i + 1 == p.n ? 0 : i + 1]); });
}

// How far (x, y) can be from the crossing of the exact rows (Lemma 2 of docs/exactness.md).
PLR_ENGINE double vertex_error(const RowOnPlane& p, const RowOnPlane& q, double x, double y) {
  const auto residual = [&](const RowOnPlane& r) {
    return std::fabs(r.a * x + r.b * y + r.c) + 8 * kUnit * (std::fabs(r.a * x) + std::fabs(r.b * y) + std::fabs(r.c)) +
           r.error;
  };
  const double left = p.a * q.b, right = q.a * p.b;
  const double det = std::fabs(left - right) - 8 * kUnit * (std::fabs(left) + std::fabs(right)) - kDeterminantUnderflow;
  if (!(det > 0)) return INFINITY;
  const double d = (std::max(std::fabs(q.a), std::fabs(q.b)) * residual(p) +
                    std::max(std::fabs(p.a), std::fabs(p.b)) * residual(q) + kQuotientUnderflow) /
                   det * kInflate;
  return std::isnan(d) ? INFINITY : d;
}

struct Place {
  double x, y;
};
struct NewVertex {
  double x, y, d;
  VertexKey key;
};

// Where `line` crosses the edge from vertex i to the next; z are its values there, of different exact sign.
PLR_ENGINE NewVertex crossing(const Polygon& p, int64_t i, const RowOnPlane& line, double z_i, double z_next) {
  const int64_t j = i + 1 == p.n ? 0 : i + 1;
  double t = z_i / (z_i - z_next);
  t = std::isnan(t) ? 0.5 : std::min(1.0, std::max(0.0, t));
  NewVertex v;
  v.x = p.x[i] + t * (p.x[j] - p.x[i]);
  v.y = p.y[i] + t * (p.y[j] - p.y[i]);
  const RowOnPlane axis{0, 1, 0, 0, -1};
  v.d = vertex_error(p.n == 2 ? axis : *p.edges[i], line, v.x, v.y);
  if (p.keys) v.key = key_on(p.n == 2 ? VertexKey{0, 0} : p.bases[i], line.number);
  return v;
}

// The sides of `p` where `line` is not negative, and not positive. signs[i] in {-1, 0, 1}; both signs occur.
// `crossing(i)` is where the line cuts edge i, whose ends have opposite signs.
template <class Crossing> PLR_ENGINE void cut_in_two(Arena& arena, const Polygon& p, const RowOnPlane* line,
                                                     const int8_t* signs, Polygon& above, Polygon& below,
                                                     const Crossing& crossing) {
  above = take_polygon(arena, p.n + 1, p.keys != nullptr);
  below = take_polygon(arena, p.n + 1, p.keys != nullptr);
  above.n = below.n = 0;
  above.d_max = below.d_max = 0;
  const bool segment = p.n == 2;
  const auto put = [](Polygon& out, double x, double y, double d, const RowOnPlane* edge) {
    out.x[out.n] = x, out.y[out.n] = y, out.d[out.n] = d, out.edges[out.n] = edge;
    out.d_max = std::max(out.d_max, d);
  };
  Polygon* const sides[2] = {&above, &below};
  int64_t chords[2] = {-1, -1};  // the new edges
  for (int64_t i = 0; i < p.n; ++i) {
    const int64_t j = i + 1 == p.n ? 0 : i + 1;
    for (int k = 0; k < 2; ++k) {
      const int here = k ? -signs[i] : signs[i], next = k ? -signs[j] : signs[j];
      if (here < 0) continue;
      Polygon& out = *sides[k];
      const bool leaves = here == 0 && next < 0 && !segment;
      if (leaves) chords[k] = out.n;
      put(out, p.x[i], p.y[i], p.d[i], leaves ? line : p.edges[i]);
      if (p.keys) {
        out.keys[out.n] = p.keys[i];
        if (!leaves) out.bases[out.n] = p.bases[i];
      }
      ++out.n;
    }
    if (signs[i] * signs[j] < 0 && !(segment && i)) {
      const NewVertex v = crossing(i);
      for (int k = 0; k < 2; ++k) {
        Polygon& out = *sides[k];
        const bool leaves = (k ? -signs[i] : signs[i]) > 0 && !segment;
        if (leaves) chords[k] = out.n;
        put(out, v.x, v.y, v.d, leaves || segment ? line : p.edges[i]);
        if (p.keys) {
          out.keys[out.n] = v.key;
          if (!leaves && !segment) out.bases[out.n] = p.bases[i];
        }
        ++out.n;
      }
    }
  }
  if (!p.keys) return;
  for (int k = 0; k < 2; ++k) {
    Polygon& out = *sides[k];
    const int64_t at = chords[k];
    if (at >= 0) out.bases[at] = between(out.keys[at], out.keys[at + 1 == out.n ? 0 : at + 1]);
  }
}

}  // namespace
}  // namespace pylinregion
