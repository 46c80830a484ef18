// (Part of Engine.) The cells of the last stage are only counted: k chords of a convex polygon with I crossings inside
// make 1 + k + I cells, when no three meet in a point and no two on the border. What is not certain is left to cutting.

struct ChordEnd {
  int64_t edge;
  double t, error;  // where on the edge, in [0, 1]
};
struct Chord {
  ChordEnd from, to;  // from.edge < to.edge
};
static constexpr int64_t kMostChords = 12;

bool count_chords(const Cell& cell) {
  const int64_t k = cell.candidates.n;
  int64_t crossings = 0;
  if (k > kMostChords) return false;
  if (k > 1) {
    Chord chords[kMostChords];
    for (int64_t i = 0; i < k; ++i)
      if (!chord_of(cell, i, chords[i])) return false;
    bool meet[kMostChords][kMostChords];
    for (int64_t i = 0; i < k; ++i)
      for (int64_t j = i + 1; j < k; ++j) {
        const int crossed = interleave(chords[i], chords[j]);
        if (crossed < 0) return false;
        meet[i][j] = crossed;
        crossings += crossed;
      }
    for (int64_t i = 0; i < k; ++i)
      for (int64_t j = i + 1; j < k; ++j)
        for (int64_t l = j + 1; l < k; ++l)
          if (meet[i][j] && meet[i][l] && meet[j][l] && !certain_at_crossing(cell, i, j, l)) return false;
  }
  const int64_t cells = 1 + k + crossings;
  result_.regions[static_cast<size_t>(cell.stage)] += cells;
  unreported_ += cells;
  if (unreported_ >= 1024) flush();
  return true;
}

bool chord_of(const Cell& cell, int64_t k, Chord& chord) const {
  const Candidates& from = cell.candidates;
  const Polygon& polygon = cell.polygon;
  int ends = 0;
  double z_first = 0, t_first = 0, z = 0, t = 0;
  for (int64_t v = 0; v <= polygon.n; ++v) {
    const double z_before = z, t_before = t;
    if (v < polygon.n) {
      z = from.a[k] * polygon.x[v] + from.b[k] * polygon.y[v] + from.c[k];
      t = threshold(from.a[k], from.b[k], from.p[k], polygon.d[v]);
      if (!(std::fabs(z) > 2 * t)) return false;
    } else {
      z = z_first, t = t_first;
    }
    if (v == 0) {
      z_first = z, t_first = t;
    } else if ((z_before > 0) != (z > 0)) {
      const double width = std::fabs(z_before - z);
      const ChordEnd end{v - 1, std::fabs(z_before) / width, 2 * std::max(t, t_before) / width * kInflate + 16 * kUnit};
      (ends++ ? chord.to : chord.from) = end;
    }
  }
  return ends == 2;
}

// 1 if the chords cross inside, 0 if not, -1 if that is not certain.
static int interleave(const Chord& p, const Chord& q) {
  const auto order = [](const ChordEnd& a, const ChordEnd& b) {
    if (a.edge != b.edge) return a.edge < b.edge ? -1 : 1;
    const double gap = a.error + b.error + 4 * kUnit;
    return a.t < b.t - gap ? -1 : a.t > b.t + gap ? 1 : 0;
  };
  const int a = order(p.from, q.from), b = order(p.from, q.to), c = order(p.to, q.from), d = order(p.to, q.to);
  if (!a || !b || !c || !d) return -1;
  const bool from_inside = a < 0 && c > 0, to_inside = b < 0 && d > 0;  // of q's ends between p's
  return from_inside != to_inside;
}

bool certain_at_crossing(const Cell& cell, int64_t i, int64_t j, int64_t l) const {
  const Candidates& r = cell.candidates;
  const RowOnPlane p{r.a[i], r.b[i], r.c[i], r.p[i], 0}, q{r.a[j], r.b[j], r.c[j], r.p[j], 0};
  const double det = p.a * q.b - q.a * p.b;
  const double x = (p.b * q.c - q.b * p.c) / det, y = (q.a * p.c - p.a * q.c) / det;
  const double z = r.a[l] * x + r.b[l] * y + r.c[l];
  return std::fabs(z) > threshold(r.a[l], r.b[l], r.p[l], vertex_error(p, q, x, y));
}
