// (Part of Engine.) Fold: bounds over the cell say which lines of later stages cannot cross it. Those that are off drop
// out, those that are on are substituted, and a smaller system remains. Bounds only prune: they need be safe, not
// tight. Where they prune little, in stages far ahead, the fold ends: the rows from there on stay as they are.

// What max(z, 0) of a line is between, as lambda * (affine form) +- radius, for all that depends on it.
struct Relaxed {
  Rows4 form;    // its p is the radius
  double* high;  // upper bound of max(z, 0)
};
// What a fold does to a stage, in rows.
struct StageCount {
  int64_t kept, on;
  int64_t likely;  // lines that would cross the cell if their relaxed forms were exact
};

// What a fold does with the rows of a cell's fold.
struct Plan {
  uint8_t* keeps;        // of each stage after the first, for every eight rows: which of them are kept
  int64_t* keeps_begin;  // [stages + 1]
  int32_t* on;           // [n_on]: rows that are on, by stage
  const double* high;    // upper bounds of max(z, 0)
  int64_t first, end;    // the stages that are folded; rows of later stages are all kept
  int64_t touched_end;   // the first stage from which on the rows are not even touched
  int64_t kept, n_on;    // rows of the folded stages
  StageCount* counts;    // of each of them
};

void refold(Cell& cell) {
  const Fold& fold = *cell.fold;
  const StageView& current = fold.stages[cell.stage];
  const int64_t rows = fold.rows, crossing = cell.candidates.n;
  const bool always = options_.fold_ahead > 0;
  if (rows == current.end || fold.depth == kMostFolds) return;
  if (!always && (rows - current.end < kWorthFolding || (cell.attempt != INT64_MAX && 4 * crossing > 3 * cell.attempt)))
    return;
  cell.attempt = crossing;

  const Arena::Mark mark = arena_.mark();
  const int64_t size = padded(rows + kLanes);
  double* memory = arena_.take<double>(9 * size);
  const auto array = [&](int64_t i) { return memory + i * size; };
  Relaxed relaxed{{array(0), array(1), array(2), array(3)}, array(4)};
  const Rows4 form{array(5), array(6), array(7), array(8)};  // a row once what it depends on is relaxed; p: its radius
  Plan plan{arena_.take<uint8_t>(rows / kLanes + n_stages_ + 1),
            arena_.take<int64_t>(n_stages_ + 1),
            arena_.take<int32_t>(rows),
            relaxed.high,
            cell.stage,
            n_stages_,
            0,
            crossing,
            0,
            arena_.take<StageCount>(n_stages_)};
  plan.counts[cell.stage] = {crossing, 0, crossing};
  const double g = static_cast<double>(rows + 32) * kUnit * (1 + 1e-9);  // >= gamma: docs/exactness.md, 4.1

  const Candidates& left = cell.candidates;
  for (int64_t i = 0; i < crossing; ++i) {
    const int64_t r = left.row[i];
    form.a[r] = left.a[i], form.b[r] = left.b[i], form.c[r] = left.c[i];
    form.p[r] = left.p[i] + g * magnitude(form, r);
  }
  plan.keeps_begin[cell.stage] = 0;
  int64_t known = current.end;  // rows before `known` have forms
  const auto know = [&](int64_t to) {
    if (known < cell.reach) know_rows(cell.affine, form, known, std::min(to, cell.reach), g);
    if (to > cell.reach) know_rows(fold.far, form, std::max(known, cell.reach), to, g);
    known = std::max(known, to);
  };
  int32_t* live = arena_.take<int32_t>(rows);
  for (int64_t l = cell.stage; l < n_stages_; ++l) {
    const StageView& stage = fold.stages[l];
    int64_t n = 0, kept = 0, on = 0, crosses = 0;
    know(stage.end);
    uint8_t* keeps = plan.keeps + plan.keeps_begin[l];
    if (has_groups(l)) {
      const GroupFates found = relax_groups(cell, l, form, g, relaxed, keeps, plan.on + plan.n_on, live);
      n = found.live, on = found.on, kept = crosses = found.kept;
      keeps += (stage.end - stage.begin + kLanes - 1) / kLanes;
    }
    for (int64_t r = stage.begin; r < stage.end && !has_groups(l); r += kLanes) {
      const uint32_t valid = stage.end - r >= kLanes ? 0xff : (1u << (stage.end - r)) - 1;
      const Sides sides = relax(cell.polygon, form, r, g, relaxed);
      if (l == cell.stage) continue;
      uint32_t lives = valid & ~sides.off, is_on = lives & sides.on;
      *keeps++ = static_cast<uint8_t>(lives & ~is_on);
      crosses += __builtin_popcount(lives & sides.likely);
      for (; is_on; is_on &= is_on - 1) plan.on[plan.n_on + on++] = static_cast<int32_t>(r + __builtin_ctz(is_on));
      for (; lives; lives &= lives - 1) live[n++] = static_cast<int32_t>(r + __builtin_ctz(lives));
    }
    plan.keeps_begin[l + 1] = keeps - plan.keeps;
    if (l == cell.stage && !has_groups(l)) {
      n = crossing;
      std::copy(left.row, left.row + n, live);
    } else if (l > cell.stage) {
      if (!has_groups(l)) kept = n - on;
      const bool far = always ? l > cell.stage + options_.fold_ahead
                              : kept > kMostKept * static_cast<double>(stage.end - stage.begin) && l + 1 < n_stages_;
      if (far) {
        plan.end = l;
        break;
      }
      plan.kept += kept;
      plan.counts[l] = {kept, on, crosses};
      plan.n_on += on;
    }
    if (l + 1 == n_stages_) break;
    know(stage.extent);
    if (n) add(form, form, stage, live, n, relaxed.form, live);
  }
  int64_t touched = std::max(cell.reach, fold.stages[plan.end - 1].end);
  for (int64_t l = plan.first; l < plan.end; ++l) touched = std::max(touched, fold.stages[l].extent);
  plan.touched_end = plan.end;
  while (plan.touched_end < n_stages_ && fold.stages[plan.touched_end].begin < touched) ++plan.touched_end;
  if (plan.end < cell.stage + 2 || !(always || worth_folding(fold, plan))) {
    arena_.release(mark);
    return;
  }
  ++result_.decisions.folds;
  // Until they are settled, it does not matter what is said of those that are kept.
  for (int64_t r = current.end; r < fold.stages[plan.end - 1].end; ++r) on_[static_cast<size_t>(fold.line[r])] = 0;
  for (int64_t i = 0; i < plan.n_on; ++i) on_[static_cast<size_t>(fold.line[plan.on[i]])] = 1;
  compact(cell, plan);
}

void know_rows(const Affine& in, const Rows4& form, int64_t from, int64_t to, double g) const {
  for (int64_t r = from; r < to; r += kLanes) {
    const V a = load(in.a + r), b = load(in.b + r), c = load(in.c + r);
    const V size_of = abs(a) * set(shared_.hs) + abs(b) * set(shared_.ht) + abs(c);
    store(form.a + r, a), store(form.b + r, b), store(form.c + r, c);
    store(form.p + r, load(in.p + r) + set(g) * size_of);
  }
}

// Whether the cells to come save more multiplications than the fold costs; the factors were found by measuring.
bool worth_folding(const Fold& fold, const Plan& plan) const {
  const int64_t touched =
      (plan.touched_end < n_stages_ ? fold.stages[plan.touched_end].begin : fold.rows) - fold.stages[plan.end - 1].end;
  int64_t live = plan.kept + plan.n_on + touched, kept_later = plan.kept + touched, kept_before = 0;
  double saved = 0, cost = 0, k = 0, cells = 1;
  for (int64_t l = plan.first; l < plan.end; ++l) {
    const StageView& stage = fold.stages[l];
    const StageCount& count = plan.counts[l];
    kept_later -= count.kept, live -= count.kept + count.on;
    const int64_t before = (stage.end - stage.begin) * (stage.extent - stage.end + kLanes);
    const int64_t after = count.kept * (kept_later + kLanes);
    saved += 1.5 * cells * static_cast<double>(before - after);
    cost += static_cast<double>(count.on * (kept_before + 4) * live) +
            8 * static_cast<double>((count.kept + count.on) * live);
    kept_before += count.kept;
    k += static_cast<double>(count.likely);  // k lines make between 1 + k and 1 + k (k + 1) / 2 cells
    cells = 1 + k + k * k / 6;
  }
  return saved > cost;
}

// Which of eight rows are settled on a cell, and which would cross it if their relaxed forms were exact.
struct Sides {
  uint32_t on, off, likely;
};
// Eight rows: z is between low and high on the polygon, so max(z, 0) is within lambda * form + mu +- (mu + lambda p),
// lambda the slope from (low, 0) to (high, high). Rows that are on come out unchanged.
Sides relax(const Polygon& polygon, const Rows4& form, int64_t r, double g, const Relaxed& out) const {
  const V a = load(form.a + r), b = load(form.b + r), c = load(form.c + r), p = load(form.p + r);
  V low = set(INFINITY), high = set(-INFINITY);
  for (int64_t v = 0; v < polygon.n; ++v) {
    const V z = multiply_add(a, set(polygon.x[v]), multiply_add(b, set(polygon.y[v]), c));
    low = min(z, low), high = max(z, high);
  }
  const V size = abs(a) * set(shared_.hs) + abs(b) * set(shared_.ht) + abs(c);
  const V slack = (p + (abs(a) + abs(b)) * set(polygon.d_max) + set(16 * kUnit) * size) * set(1 + 8 * g);
  const V zero = set(0), huge = set(INFINITY);
  const auto known = slack < huge;  // false for NaN
  Sides sides;
  sides.likely = above(zero, low) & above(high, zero);
  low = known ? low - slack : -huge, high = known ? high + slack : huge;
  sides.on = above(low, zero), sides.off = above(zero, high);
  low = min(low, zero), high = max(high, zero);
  const auto bounded = known & (high < huge) & (low > -huge);
  const V width = high - low;
  const V lambda = width > zero ? high / width : zero, mu = -lambda * low * set(0.5);
  store(out.high + r, high);
  store(out.form.a + r, bounded ? lambda * a : zero);
  store(out.form.b + r, bounded ? lambda * b : zero);
  store(out.form.c + r, bounded ? lambda * c + mu : zero);
  store(out.form.p + r, bounded ? mu + lambda * p + set(g) * (lambda * size + high + mu) : huge);
  return sides;
}

// A system of the rows that are kept; those that are on are eliminated, stage by stage, as a Schur complement:
//   X_rc = C_rc + sum over on rows t of C_rt X_tc, for the kept columns c and the affine part.
void compact(Cell& cell, const Plan& plan) {
  const Fold& fold = *cell.fold;
  const int64_t first = plan.first, last = plan.touched_end;
  const int64_t untouched = last < n_stages_ ? fold.stages[last].begin : fold.rows;
  const int64_t window_end = fold.stages[plan.end - 1].end;
  const int64_t reach = plan.kept + untouched - window_end, rows = reach + fold.rows - untouched;
  StageView* stages = arena_.take<StageView>(n_stages_);
  int32_t* numbers = arena_.take<int32_t>(rows);
  int32_t* kept = arena_.take<int32_t>(reach);         // the rows in `fold`
  int64_t* on_begin = arena_.take<int64_t>(last + 1);  // by stage
  int64_t n_kept = 0, n_on = 0;
  for (int64_t l = 0; l < n_stages_; ++l) {
    const StageView& old = fold.stages[l];
    if (l < last) on_begin[l] = n_on;
    if (l >= plan.end) {
      const int64_t shift = rows - fold.rows;
      stages[l] = {old.begin + shift, old.end + shift, old.extent + shift, old.columns, old.stride};
    } else {
      stages[l] = {n_kept, n_kept, n_kept, nullptr, 0};
      if (l < first) continue;
      if (l == first) {
        n_kept = cell.candidates.n;
        std::copy(cell.candidates.row, cell.candidates.row + n_kept, kept);
      } else {
        const uint8_t* keeps = plan.keeps + plan.keeps_begin[l];
        for (int64_t r = old.begin; r < old.end; r += kLanes)
          for (uint32_t rest = *keeps++; rest; rest &= rest - 1)
            kept[n_kept++] = static_cast<int32_t>(r + __builtin_ctz(rest));
      }
      stages[l].end = n_kept;
      if (l + 1 < n_stages_) n_on += plan.counts[l].on;  // nothing takes from what is on in the last stage
    }
  }
  on_begin[last] = n_on;
  for (int64_t r = window_end; r < untouched; ++r) kept[n_kept++] = static_cast<int32_t>(r);
  for (int64_t i = 0; i < reach; ++i) numbers[i] = fold.line[kept[i]];
  std::copy(fold.line + untouched, fold.line + fold.rows, numbers + reach);
  // Where the columns of a folded stage end: with what it takes part in, or what those that are on behind it do.
  int64_t* column_end = arena_.take<int64_t>(last);  // in stages
  int64_t behind = 0;
  for (int64_t l = plan.end; l-- > first;) {
    const int64_t extent = std::max(fold.stages[l].extent, behind);
    if (on_begin[l + 1] > on_begin[l]) behind = extent;
    int64_t to = l + 1;
    while (to < last && fold.stages[to].begin < extent) ++to;
    column_end[l] = to;
    const int64_t n = stages[l].end - stages[l].begin;
    stages[l].extent = to < last ? stages[to].begin : reach;
    stages[l].stride = padded(stages[l].extent - stages[l].end) + kLanes;
    stages[l].columns = n ? arena_.take<double>(n * stages[l].stride) : nullptr;
  }
  Affine affine = take_affine(0, reach);
  Fold* out = arena_.take<Fold>(1);
  *out = {stages, rows, numbers, shifted(fold.far, fold.rows - rows), first, fold.depth + 1, {}};
  const OwnNorms norms = fold.norms.own ? take_norms() : OwnNorms{};

  const Arena::Mark mark = arena_.mark();
  // Arrays over all rows of the stages after the first: what does not live on is not worth leaving out.
  const int64_t begin = fold.stages[first].end, size = padded(untouched - begin + kLanes);
  double* memory = arena_.take<double>(11 * size) - begin;
  const auto array = [&](int64_t i) { return memory + i * size; };
  double *size_before = array(0),
         *size_after = array(1);  // |A_r| + sum |C_rc| high_c, of the row as it was, and will be
  std::fill(size_before + begin, size_before + begin + 2 * size, 0.0);
  const Rows4 v{array(2), array(3), array(4), array(5)};
  double* const each[4] = {v.a, v.b, v.c, v.p};
  for (int64_t l = first; l < plan.end; ++l) {
    const StageView& stage = fold.stages[l];
    const int64_t n = stages[l].end - stages[l].begin, to = column_end[l];
    const int64_t end = to < last ? fold.stages[to].begin : untouched;
    for (int64_t k = 0; k < n; k += 4) {
      const int64_t columns = std::min<int64_t>(4, n - k);
      const int32_t* t = kept + stages[l].begin + k;
      for (int64_t i = 0; i < columns; ++i) {
        take_column(column(stage, t[i]), each[i], stage.end, stage.extent, plan.high[t[i]], size_before);
        std::fill(each[i] + stage.extent, each[i] + end, 0.0);
      }
      for (int64_t j = l + 1; j < std::min(to, plan.end); ++j)
        if (const int64_t some = on_begin[j + 1] - on_begin[j])
          add_plain(v, columns, fold.stages[j], plan.on + on_begin[j], some);
      for (int64_t i = 0; i < columns; ++i) {
        double* to_column = const_cast<double*>(stages[l].columns) + (k + i) * stages[l].stride;
        double* const column_stop = to_column + stages[l].stride;
        for (int64_t j = l + 1; j < to; ++j)
          to_column = keep_rows(each[i], fold.stages[j], j < plan.end ? plan.keeps + plan.keeps_begin[j] : nullptr,
                                plan.high[t[i]], size_after, to_column);
        std::fill(to_column, column_stop, 0.0);
      }
    }
  }
  // The affine parts, and e'_r = e_r + gamma_r size_r + sum |C_rt| (e'_t + gamma size'_t): Lemma 1.
  const Rows4 a{array(6), array(7), array(8), array(9)};
  const Rows4 given{a.a, a.b, a.c, array(10)};
  const int64_t from_far = std::max(begin, cell.reach);
  if (begin < cell.reach) copy_rows(cell.affine, a, begin, cell.reach);
  if (from_far < untouched) copy_rows(fold.far, a, from_far, untouched);
  // A row rounds as many products as are added to it; none: nothing.
  double* gamma = arena_.take<double>(last);
  double largest_gamma = 0;
  for (int64_t l = first; l < last; ++l) {
    int64_t added = 0;
    for (int64_t j = first; j < std::min(l, plan.end); ++j)
      if (fold.stages[j].extent > fold.stages[l].begin) added += on_begin[j + 1] - on_begin[j];
    gamma[l] = added ? static_cast<double>(added + 3) * kUnit * (1 + 1e-9) : 0;
    largest_gamma = std::max(largest_gamma, gamma[l]);
  }
  for (int64_t l = first + 1; l < last; ++l) {
    const StageView& stage = fold.stages[l];
    for (int64_t r = stage.begin; r < stage.end; ++r) {
      const double before = r < cell.reach ? magnitude(cell.affine, r) : magnitude(fold.far, r);
      size_before[r] += before, size_after[r] += magnitude(a, r);
      a.p[r] = (a.p[r] + gamma[l] * size_before[r]) * kInflate;
      given.p[r] = a.p[r] + largest_gamma * size_after[r];
    }
    const int64_t some = l < plan.end ? on_begin[l + 1] - on_begin[l] : 0;
    if (some) add(a, a, stage, plan.on + on_begin[l], some, given, plan.on + on_begin[l]);
  }
  double* fresh = arena_.take<double>(last);  // norms of what is rounded here
  if (fold.norms.own) {
    double* after = arena_.take<double>(last);
    for (int64_t l = first; l < last; ++l) {
      const StageView& stage = fold.stages[l];
      fresh[l] = gamma[l] ? norm(size_before, stage.begin, stage.end) : 0;
      after[l] = on_begin[l + 1] > on_begin[l] ? norm(size_after, stage.begin, stage.end) : 0;
      for (int64_t j = first; j < l; ++j) fresh[l] += frobenius(l, j) * after[j];
      fresh[l] *= gamma[l] * kNormInflate;
    }
  }
  for (int64_t i = 0; i < reach; ++i) {
    const bool now = i < stages[first].end;
    const Rows4& from = now ? cell.candidates : a;
    const int64_t r = now ? i : kept[i];
    affine.a[i] = from.a[r], affine.b[i] = from.b[r], affine.c[i] = from.c[r];
    affine.p[i] = from.p[r] + shared_.prepaid * magnitude(affine, i);
  }
  if (fold.norms.own) out->norms = folded_norms(norms, cell, first, last, stages, affine, fresh);
  arena_.release(mark);
  cell.fold = out;
  cell.affine = affine, cell.reach = reach;
  cell.spent = cell.operations = 0;
  const StageView& now = stages[first];
  cell.candidates = {shifted(affine, now.begin), now.end - now.begin, line_numbers_.data() + now.begin};
}
// v = the column, sizes += |column| high, for the rows [from, to) and up to whole vectors.
static void take_column(const double* column, double* v, int64_t from, int64_t to, double high, double* sizes) {
  for (int64_t r = from; r < to; r += kLanes) {
    const V w = load(column + r);
    store(v + r, w);
    store(sizes + r, multiply_add(abs(w), set(high), load(sizes + r)));
  }
}
// What is kept of a stage's rows (null: all), next to each other from `out` on; returns its end. sizes += |v| high.
static double* keep_rows(const double* v, const StageView& stage, const uint8_t* keeps, double high, double* sizes,
                         double* out) {
  for (int64_t r = stage.begin; r < stage.end; r += kLanes) {
    const V w = load(v + r);
    const uint32_t valid = stage.end - r >= kLanes ? 0xff : (1u << (stage.end - r)) - 1;
    const V size = multiply_add(abs(w), set(high), load(sizes + r));
    double* const to = sizes + r;
    if (valid == 0xff) {
      store(to, size);
    } else {
      for (int64_t k = 0; k < stage.end - r; ++k) to[k] = size[k];
    }
    out = put(out, w, keeps ? *keeps++ : valid);
  }
  return out;
}
