// (Part of Engine.) Stages of maxima: the lines of a stage are candidates, in groups of consecutive ones. A cell is cut
// along the upper envelope of a group: into the parts on which one candidate is the largest.

// Candidate i less candidate j; the rounding of the difference is one of those that p prepays.
RowOnPlane difference(const Cell& cell, int64_t i, int64_t j) const {
  const Candidates& of = cell.candidates;
  return {of.a[i] - of.a[j], of.b[i] - of.b[j], of.c[i] - of.c[j], of.p[i] + of.p[j], 0};
}
bool has_groups(int64_t stage) const { return has_groups_[static_cast<size_t>(stage)]; }
int64_t line_of(const Cell& cell, int64_t k) const { return cell.candidates.line[k]; }
// The first row after `begin` of another group, of rows whose lines are line_of(begin), ...
template <class LineOf> int64_t group_end(int64_t begin, int64_t end, LineOf&& line_at) const {
  const int32_t* group = system_.groups->of_line();
  int64_t i = begin + 1;
  while (i < end && group[line_at(i)] == group[line_at(begin)]) ++i;
  return i;
}
int64_t group_end(const Cell& cell, int64_t begin) const {
  return group_end(begin, cell.candidates.n, [&](int64_t i) { return line_of(cell, i); });
}

// The sign at a vertex of candidate i less candidate j.
int difference_sign(const Cell& cell, const Polygon& polygon, int64_t v, const RowOnPlane& row, int64_t i, int64_t j,
                    double& z) {
  z = row.a * polygon.x[v] + row.b * polygon.y[v] + row.c;
  const double t = threshold(row.a, row.b, row.error, polygon.d[v]);
  if (z > t) return 1;
  if (z < -t) return -1;
  const int64_t p = line_of(cell, i), q = line_of(cell, j);
  return p < q ? exact_sign(polygon, v, system_.groups->pair(p, q))
               : -exact_sign(polygon, v, system_.groups->pair(q, p));
}

// --- settling ---

enum Contest : int8_t { kFirstWins, kSecondWins, kBothMay, kOpen };

// What float64 can tell of two candidates on a cell; with `exactly` what is true. Of equal ones the first wins.
Contest contest(const Cell& cell, int64_t i, int64_t j, bool exactly) {
  const Polygon& polygon = cell.polygon;
  const RowOnPlane row = difference(cell, i, j);
  bool above = false, below = false, open = false;
  for (int64_t v = 0; v < polygon.n; ++v) {
    const double z = row.a * polygon.x[v] + row.b * polygon.y[v] + row.c;
    const double t = threshold(row.a, row.b, row.error, polygon.d[v]);
    z > t ? above = true : z < -t ? below = true : open = true;
  }
  if (above && below) return kBothMay;
  if (open && !exactly) return kOpen;
  double z;
  for (int64_t v = 0; open && v < polygon.n && !(above && below); ++v) {
    const int sign = difference_sign(cell, polygon, v, row, i, j, z);
    above |= sign > 0, below |= sign < 0;
  }
  return above && below ? kBothMay : below ? kSecondWins : kFirstWins;
}

// Marks those of the candidates [begin, end) of a group that are the largest nowhere inside the cell.
void find_losers(const Cell& cell, int64_t begin, int64_t end, uint8_t* lost) {
  const Candidates& all = cell.candidates;
  const Polygon& polygon = cell.polygon;
  const int64_t* zero = system_.groups->zero();
  std::fill(lost + begin, lost + end, uint8_t{0});
  // A rectified candidate that is off is 0 on the cell, and one that is on is above 0: no arithmetic for these.
  bool some_on = false, some_off = false;
  for (int64_t k = begin; k < end; ++k) {
    const int64_t line = zero[line_of(cell, k)];
    if (line >= 0) (on_[static_cast<size_t>(line)] ? some_on : some_off) = true;
  }
  for (int64_t k = begin, kept = some_on; some_off && k < end; ++k) {
    const int64_t line = zero[line_of(cell, k)];
    if (line >= 0 && !on_[static_cast<size_t>(line)]) lost[k] = kept, kept = 1;
  }
  // Most are below the one that is the largest in the middle.
  double x = 0, y = 0;
  for (int64_t v = 0; v < polygon.n; ++v) x += polygon.x[v], y += polygon.y[v];
  const double share = 1 / static_cast<double>(polygon.n);
  int64_t best = -1;
  double largest = 0;
  for (int64_t k = begin; k < end; ++k) {
    const double z = all.a[k] * (x * share) + all.b[k] * (y * share) + all.c[k];
    if (!lost[k] && (best < 0 || z > largest)) best = k, largest = z;
  }
  result_.decisions.filter += (end - begin) * polygon.n;
  const V a_best = set(all.a[best]), b_best = set(all.b[best]), c_best = set(all.c[best]), p_best = set(all.p[best]);
  for (int64_t k = begin; k < end; k += kLanes) {
    const V a = load(all.a + k) - a_best, b = load(all.b + k) - b_best, c = load(all.c + k) - c_best;
    const V t = (load(all.p + k) + p_best + (abs(a) + abs(b)) * set(polygon.d_max)) * set(factor_);
    uint32_t below = 0xff;
    for (int64_t v = 0; v < polygon.n && below; ++v)
      below &= above(-multiply_add(a, set(polygon.x[v]), multiply_add(b, set(polygon.y[v]), c)), t);
    for (int64_t i = 0; i < std::min<int64_t>(kLanes, end - k); ++i) lost[k + i] |= below >> i & 1;
  }
  // The rest in pairs, those that float64 can tell first.
  for (const bool exactly : {false, true})
    for (int64_t i = begin; i < end; ++i)
      for (int64_t j = i + 1; j < end && !lost[i]; ++j) {
        if (lost[j]) continue;
        const Contest result = contest(cell, i, j, exactly);
        if (result == kFirstWins) lost[j] = 1;
        if (result == kSecondWins) lost[i] = 1;
      }
}

// As settle: candidates that are nowhere the largest are off, one that has no rivals left is on.
void settle_groups(Cell& cell) {
  const Candidates& all = cell.candidates;
  const Arena::Mark mark = arena_.mark();
  uint8_t* lost = arena_.take<uint8_t>(all.n);
  const int64_t size = padded(all.n + kLanes);
  int32_t* const numbers = arena_.take<int32_t>(3 * size);
  SomeRows on{take_rows(all.n), 0, numbers};
  Candidates left{{take_rows(all.n), 0, numbers + size}, numbers + 2 * size};
  const auto copy = [&](int64_t k, const Rows4& to, int64_t i) {
    to.a[i] = all.a[k], to.b[i] = all.b[k], to.c[i] = all.c[k], to.p[i] = all.p[k];
  };
  for (int64_t begin = 0, end; begin < all.n; begin = end) {
    end = group_end(cell, begin);
    find_losers(cell, begin, end, lost);
    const bool decided = std::count(lost + begin, lost + end, uint8_t{0}) == 1;
    for (int64_t k = begin; k < end; ++k) {
      uint8_t& state = on_[static_cast<size_t>(line_of(cell, k))];
      state = !lost[k] && decided;
      if (lost[k]) continue;
      if (decided) {
        numbers[on.n] = all.row[k], copy(k, on, on.n++);
        continue;
      }
      numbers[size + left.n] = all.row[k], numbers[2 * size + left.n] = all.line[k];
      copy(k, left, left.n++);
    }
  }
  if (left.n == all.n) return arena_.release(mark);
  if (on.n && cell.stage + 1 < n_stages_) substitute(cell, on);
  cell.candidates = left;
}

// --- cutting ---

// The part of a cell on which a candidate is the largest of its group.
struct Share {
  int64_t candidate;
  Polygon polygon;
};

#include "group_names.inl"

// Cut by the first group, into the shares of its candidates.
void split_group(const Cell& cell, int64_t depth) {
  const Candidates& all = cell.candidates;
  const int64_t size = group_end(cell, 0);
  Share* shares = arena_.take<Share>(size);
  int64_t n = 0;
  for (int64_t i = 0; i < size; ++i) shares[n++].candidate = i;
  // Again without those that win nowhere: of the winners each edge belongs to one pair alone.
  for (int64_t before = n + 1; n < before;) {
    const int64_t rivals = before = n;
    n = 0;
    int64_t* winners = arena_.take<int64_t>(rivals);
    for (int64_t i = 0; i < rivals; ++i) winners[i] = shares[i].candidate;
    for (int64_t i = 0; i < rivals; ++i) {
      Share share{winners[i], cell.polygon};
      if (clip_to_share(cell, winners, rivals, share)) shares[n++] = share;
    }
  }
  if (cell.polygon.n == 2)
    line_up(cell, shares, n);
  else if (options_.cells)
    ShareNames(*this, cell, shares, n).give();
  for (int64_t i = 0; i < size; ++i) on_[static_cast<size_t>(line_of(cell, i))] = 0;
  int64_t halvings = 0;  // as many cuts in two make so many parts
  while ((int64_t{1} << halvings) < n) ++halvings;
  const Arena::Mark mark = arena_.mark();
  for (int64_t i = 0; i < n; ++i) {
    Cell child = cell;
    child.candidates = without_first(all, size);
    const int32_t winner = static_cast<int32_t>(shares[i].candidate);
    uint8_t& state = on_[static_cast<size_t>(line_of(cell, winner))];
    state = 1;
    child.polygon = shares[i].polygon;
    if (cell.stage + 1 < n_stages_) substitute(child, {shifted(all, winner), 1, all.row + winner});
    cut(child, depth + halvings);
    state = 0;
    if (!tasks_) arena_.release(mark);
  }
}

// Cuts a share to where its candidate is not below a rival; false if nothing is left.
bool clip_to_share(const Cell& cell, const int64_t* rivals, int64_t n, Share& share) {
  const int64_t i = share.candidate;
  for (int64_t k = 0; k < n; ++k) {
    const int64_t j = rivals[k];
    if (j == i) continue;
    const Polygon polygon = share.polygon;
    int8_t* signs = arena_.take<int8_t>(polygon.n);
    double* z = arena_.take<double>(polygon.n);
    RowOnPlane& row = *arena_.take<RowOnPlane>(1);
    row = difference(cell, i, j);
    bool some_above = false, some_below = false;
    for (int64_t v = 0; v < polygon.n; ++v) {
      signs[v] = static_cast<int8_t>(difference_sign(cell, polygon, v, row, i, j, z[v]));
      some_above |= signs[v] > 0, some_below |= signs[v] < 0;
    }
    result_.decisions.filter += polygon.n;
    if (!some_below && (some_above || i < j)) continue;
    if (!some_above) return false;
    row.number = system_.groups->pair(line_of(cell, std::min(i, j)), line_of(cell, std::max(i, j)));
    Polygon below;
    cut_in_two(arena_, polygon, &row, signs, share.polygon, below, [&](int64_t e) {
      NewVertex cut = known_crossing(polygon, e, row, z[e], z[e + 1 == polygon.n ? 0 : e + 1]);
      cut.key = kUnnamed;
      return cut;
    });
  }
  return true;
}

// The shares of a segment from its start to its end; each starts where the one before it ends.
void line_up(const Cell& cell, Share* shares, int64_t n) {
  for (int64_t i = 1; i < n; ++i)
    for (int64_t k = i; k > 0; --k) {
      const int64_t p = shares[k - 1].candidate, q = shares[k].candidate;
      double z;
      if (difference_sign(cell, cell.polygon, 0, difference(cell, p, q), p, q, z) > 0) break;
      std::swap(shares[k - 1], shares[k]);
    }
  for (int64_t i = 1; i < n; ++i) {
    const Polygon &before = shares[i - 1].polygon, &after = shares[i].polygon;
    after.x[0] = before.x[1], after.y[0] = before.y[1], after.d[0] = before.d[1];
    after.edges[0] = before.edges[1];
  }
}

// --- relaxing ---

struct GroupFates {
  int64_t live, kept, on;
};
enum Fate : uint8_t { kGone, kKept, kOn };

// The fates of the candidates of a stage (for keeps and on see Plan; of the cell's own stage only the candidates that
// are left live); for each group that lives one row with the relaxed form of its maximum, which is as good as another,
// for all have the same columns: max z = z_best + [0, H], H bounding all z_i - z_best.
GroupFates relax_groups(const Cell& cell, int64_t l, const Rows4& form, double g, const Relaxed& out, uint8_t* keeps,
                        int32_t* on, int32_t* live) {
  const Fold& fold = *cell.fold;
  const Polygon& polygon = cell.polygon;
  const StageView& stage = fold.stages[l];
  const bool now = l == cell.stage;
  uint8_t* fate = arena_.take<uint8_t>(stage.end - stage.begin) - stage.begin;
  std::fill(fate + stage.begin, fate + stage.end, uint8_t{kGone});
  for (int64_t i = 0; now && i < cell.candidates.n; ++i) fate[cell.candidates.row[i]] = kKept;
  double x = 0, y = 0;
  for (int64_t v = 0; v < polygon.n; ++v) x += polygon.x[v], y += polygon.y[v];
  x /= static_cast<double>(polygon.n), y /= static_cast<double>(polygon.n);
  GroupFates found{0, 0, 0};
  for (int64_t begin = stage.begin, end; begin < stage.end; begin = end) {
    end = group_end(begin, stage.end, [&](int64_t r) { return int64_t{fold.line[r]}; });
    int64_t best = -1;
    double largest = 0;
    for (int64_t r = begin; r < end; ++r) {
      const double z = form.a[r] * x + form.b[r] * y + form.c[r];
      if ((!now || fate[r] == kKept) && (best < 0 || z > largest)) best = r, largest = z;
    }
    if (best < 0) continue;
    const double size_best = magnitude(form, best);
    // [low, high] of a form on the polygon, widened by what it is off (relax).
    const auto range = [&](double a, double b, double c, double p, double size, double& low, double& high) {
      low = INFINITY, high = -INFINITY;
      for (int64_t v = 0; v < polygon.n; ++v) {
        const double z = a * polygon.x[v] + b * polygon.y[v] + c;
        low = std::min(low, z), high = std::max(high, z);
      }
      const double slack = (p + (std::fabs(a) + std::fabs(b)) * polygon.d_max + 16 * kUnit * size) * (1 + 8 * g);
      const bool known = slack < INFINITY;
      low = known ? low - slack : -INFINITY, high = known ? high + slack : INFINITY;
    };
    double rise = 0, low, high;
    int64_t rivals = 0;
    for (int64_t r = begin; r < end; ++r) {
      if (now && fate[r] != kKept) continue;
      const double size = magnitude(form, r);
      range(form.a[r], form.b[r], form.c[r], form.p[r], size, low, high);
      out.high[r] = std::max(-low, high);
      if (r == best) continue;
      range(form.a[r] - form.a[best], form.b[r] - form.b[best], form.c[r] - form.c[best], form.p[r] + form.p[best],
            size + size_best, low, high);
      if (!now && high < 0) continue;
      rise = std::max(rise, high);
      if (!now) fate[r] = kKept;
      ++rivals;
    }
    if (!now) {
      fate[best] = rivals ? kKept : kOn;
      if (rivals)
        found.kept += rivals + 1;
      else
        on[found.on++] = static_cast<int32_t>(best);
    }
    live[found.live++] = static_cast<int32_t>(best);
    const double half = rise / 2;
    const bool bounded = rise < INFINITY && form.p[best] < INFINITY;
    out.form.a[best] = bounded ? form.a[best] : 0;
    out.form.b[best] = bounded ? form.b[best] : 0;
    out.form.c[best] = bounded ? form.c[best] + half : 0;
    out.form.p[best] = bounded ? half + form.p[best] + g * (size_best + 2 * rise) : INFINITY;
  }
  for (int64_t r = stage.begin; r < stage.end; r += kLanes, ++keeps) {
    *keeps = 0;
    for (int64_t i = 0; i < kLanes && r + i < stage.end; ++i)
      *keeps = static_cast<uint8_t>(*keeps | (fate[r + i] == kKept) << i);
  }
  return found;
}
