// (Part of Engine.) Fold: bounds over the cell say which lines of later stages cannot cross it. Those that are off drop
// out, those that are on are substituted, and a smaller system remains. Bounds only prune: they need be safe, not
// tight. Where they prune little, in stages far ahead, the fold ends: the rows from there on stay as they are.

// What max(z, 0) of a line is between, as lambda * (affine form) +- radius, for all that depends on it.
struct Relaxed {
  Rows4 form;    // its p is the radius
  double* high;  // upper bound of max(z, 0)
};
enum Fate : uint8_t { kGone, kKept, kOn };

// What a fold does to a stage, in rows.
struct StageCount {
  int64_t kept, on;
  int64_t likely;  // lines that would cross the cell if their relaxed forms were exact
};

// What a fold does with the rows of a cell's fold.
struct Plan {
  uint8_t* fate;        // [rows before the stage `end`]
  const double* high;   // upper bounds of max(z, 0)
  int64_t first, end;   // the stages that are folded; rows of later stages are all kept
  int64_t touched_end;  // the first stage from which on the rows are not even touched
  int64_t kept, n_on;   // rows of the folded stages
  StageCount* counts;   // of each of them
};

void refold(Cell& cell) {
  const Fold& fold = *cell.fold;
  const StageView& current = fold.stages[cell.stage];
  const int64_t rows = fold.rows, crossing = cell.candidates.n;
  const bool always = options_.fold_ahead > 0;
  if (rows == current.end) return;
  if (!always && (rows - current.end < kWorthFolding || (cell.attempt != INT64_MAX && 4 * crossing > 3 * cell.attempt)))
    return;
  cell.attempt = crossing;

  const Arena::Mark mark = arena_.mark();
  const int64_t size = padded(rows + kLanes);
  double* memory = arena_.take<double>(9 * size);
  const auto array = [&](int64_t i) { return memory + i * size; };
  Relaxed relaxed{{array(0), array(1), array(2), array(3)}, array(4)};
  const Rows4 form{array(5), array(6), array(7), array(8)};  // a row once what it depends on is relaxed; p: its radius
  Plan plan{arena_.take<uint8_t>(rows + kLanes), relaxed.high, cell.stage, n_stages_, 0, crossing, 0,
            arena_.take<StageCount>(n_stages_)};
  plan.counts[cell.stage] = {crossing, 0, crossing};
  const double g = static_cast<double>(rows + 32) * kUnit * (1 + 1e-9);

  const Candidates& left = cell.candidates;
  std::fill(plan.fate + current.begin, plan.fate + current.end, static_cast<uint8_t>(kGone));
  for (int64_t i = 0; i < crossing; ++i) {
    const int64_t r = left.row[i];
    form.a[r] = left.a[i], form.b[r] = left.b[i], form.c[r] = left.c[i];
    form.p[r] = left.p[i] + g * magnitude(form, r);
    plan.fate[r] = kKept;
  }
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
    for (int64_t r = stage.begin; r < stage.end; r += kLanes) {
      const uint32_t valid = stage.end - r >= kLanes ? 0xff : (1u << (stage.end - r)) - 1;
      const Sides sides = relax(cell.polygon, form, r, g, relaxed);
      uint32_t lives = valid & ~sides.off;
      if (l == cell.stage) {
        for (uint32_t rest = lives; rest; rest &= rest - 1) {
          const int64_t t = r + __builtin_ctz(rest);
          if (plan.fate[t] == kKept) live[n++] = static_cast<int32_t>(t);
        }
        continue;
      }
      crosses += __builtin_popcount(lives & sides.likely);
      const uint64_t fates = spread(lives) * kKept + spread(lives & sides.on) * (kOn - kKept);
      std::memcpy(plan.fate + r, &fates, sizeof fates);
      on += __builtin_popcount(lives & sides.on);
      for (; lives; lives &= lives - 1) live[n++] = static_cast<int32_t>(r + __builtin_ctz(lives));
    }
    if (l > cell.stage) {
      kept = n - on;
      const bool far = always ? l > cell.stage + options_.fold_ahead
                              : kept > kMostKept * static_cast<double>(stage.end - stage.begin) && l + 1 < n_stages_;
      if (far) {
        plan.end = l;
        break;
      }
      plan.kept += kept;
      plan.counts[l] = {kept, l + 1 < n_stages_ ? on : 0, crosses};
    }
    if (l + 1 == n_stages_) break;  // nothing takes from what is on there
    plan.n_on += on;
    know(stage.extent);
    if (n) add(form, form, stage.end, stage.extent, stage, live, n, relaxed.form, live);
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
  for (int64_t r = current.end; r < fold.stages[plan.end - 1].end; ++r)
    if (plan.fate[r] != kKept) on_[static_cast<size_t>(fold.line[r])] = plan.fate[r] == kOn;
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
  // The rows that live on, stage by stage: kept ones first, then those that are on.
  Live of;
  StageView* stages = arena_.take<StageView>(n_stages_);
  const int64_t untouched = last < n_stages_ ? fold.stages[last].begin : fold.rows;
  const int64_t window_end = fold.stages[plan.end - 1].end;
  const int64_t reach = plan.kept + untouched - window_end, rows = reach + fold.rows - untouched;
  int32_t* numbers = arena_.take<int32_t>(rows);
  of.begin = arena_.take<int64_t>(last + 1);
  of.on = arena_.take<int64_t>(last);
  of.on_first = arena_.take<int64_t>(last + 1);
  of.taken_from = arena_.take<int64_t>(last);
  of.column_end = arena_.take<int64_t>(last);
  of.row = arena_.take<int32_t>(plan.kept + plan.n_on + untouched - window_end);
  int64_t n_live = 0, n_rows = 0, n_on = 0;
  for (int64_t l = 0; l < n_stages_; ++l) {
    const StageView& old = fold.stages[l];
    stages[l] = {n_rows, n_rows, n_rows, nullptr, 0};
    if (l < first) {
      if (l < last) of.begin[l] = of.on[l] = of.on_first[l] = 0;
      continue;
    }
    if (l >= last) {
      const int64_t shift = rows - fold.rows;
      stages[l] = {old.begin + shift, old.end + shift, old.extent + shift, old.columns, old.stride};
      continue;
    }
    of.begin[l] = n_live, of.on_first[l] = n_on;
    for (int64_t r = old.begin; r < old.end; ++r)
      if (l >= plan.end || plan.fate[r] == kKept)
        of.row[n_live++] = static_cast<int32_t>(r), numbers[n_rows++] = fold.line[r];
    of.on[l] = n_live;
    stages[l].end = n_rows;
    if (l > first && l < plan.end && l + 1 < n_stages_)
      for (int64_t r = old.begin; r < old.end; ++r)
        if (plan.fate[r] == kOn) of.row[n_live++] = static_cast<int32_t>(r), ++n_on;
    if (l >= plan.end) {
      const int64_t shift = rows - fold.rows;
      stages[l] = {old.begin + shift, old.end + shift, old.extent + shift, old.columns, old.stride};
    }
  }
  of.begin[last] = n_live, of.on_first[last] = n_on;
  std::copy(fold.line + untouched, fold.line + fold.rows, numbers + reach);
  const int64_t height = padded(n_live + 2 * kLanes);  // of a column over live rows
  // Where the columns of a folded stage end: what it takes part in, or what those that are on behind it do.
  int64_t behind = 0;
  for (int64_t l = plan.end; l-- > first;) {
    const int64_t extent = std::max(fold.stages[l].extent, behind);
    if (of.begin[l + 1] > of.on[l]) behind = extent;
    int64_t to = l + 1;
    while (to < last && fold.stages[to].begin < extent) ++to;
    of.column_end[l] = to;
    const int64_t n = stages[l].end - stages[l].begin;
    stages[l].extent = to < last ? stages[to].begin : reach;
    stages[l].stride = padded(stages[l].extent - stages[l].end) + kLanes;
    stages[l].columns = n ? arena_.take<double>(n * stages[l].stride) : nullptr;
  }
  for (int64_t l = first; l < last; ++l) {  // the first stage that reaches each
    int64_t from = first;
    while (fold.stages[from].extent <= fold.stages[l].begin && from < l) ++from;
    of.taken_from[l] = from;
  }
  Affine affine = take_affine(0, reach);
  Fold* out = arena_.take<Fold>(1);
  *out = {stages, rows, numbers, shifted(fold.far, fold.rows - rows)};

  const Arena::Mark mark = arena_.mark();
  // Columns of what is on, over the live rows; then three affine columns, the bound, and what it needs.
  double* on_columns = arena_.take<double>(std::max<int64_t>(1, n_on) * height);
  of.on_live = arena_.take<int64_t>(std::max<int64_t>(1, n_on));
  of.on_columns = on_columns;
  of.height = height;
  of.end = last;
  int64_t widest = 0;  // where the columns so far end
  for (int64_t l = first; l < plan.end; ++l) {
    widest = std::max(widest, of.end_of(fold, l));
    for (int64_t i = of.on[l], at = of.on_first[l]; i < of.begin[l + 1]; ++i, ++at) {
      of.on_live[at] = i;
      double* v = on_columns + at * height;
      const int64_t end = take_column(fold, l, of, of.row[i], v);
      std::fill(v + end, v + widest, 0.0);
    }
  }
  double* affine_columns = arena_.take<double>(3 * height);
  double* bound = arena_.take<double>(height);        // the residual bound of a row
  double* size_before = arena_.take<double>(height);  // |A_r| + sum |C_rc| high_c, of the row as it was
  double* size_after = arena_.take<double>(height);
  for (int64_t i = 0; i < height; ++i) bound[i] = size_before[i] = size_after[i] = 0;
  std::fill(affine_columns, affine_columns + 3 * height, 0.0);
  for (int64_t i = 0; i < n_live; ++i) {
    const int64_t r = of.row[i], k = i;
    const bool now = i < of.begin[first + 1];
    const Candidates& left = cell.candidates;
    const Rows4& from = now ? left : r < cell.reach ? cell.affine : fold.far;
    const int64_t at = now ? k : r;
    const double a = from.a[at], b = from.b[at], c = from.c[at];
    affine_columns[i] = a, affine_columns[height + i] = b, affine_columns[2 * height + i] = c;
    bound[i] = from.p[at];
    size_before[i] = std::fabs(a) * shared_.hs + std::fabs(b) * shared_.ht + std::fabs(c);
  }
  const int64_t from_live = of.begin[first + 1];
  constexpr int64_t kBlock = 4;
  double* block = arena_.take<double>(kBlock * height);
  for (int64_t l = first; l < plan.end; ++l) {
    const int64_t n = stages[l].end - stages[l].begin;
    const int64_t to = of.column_end[l];
    for (int64_t k = 0; k < n; k += kBlock) {
      const int64_t columns = std::min(kBlock, n - k);
      for (int64_t i = 0; i < columns; ++i) {
        double* v = block + i * height;
        const int32_t t = of.row[of.begin[l] + k + i];
        const int64_t end = take_column(fold, l, of, t, v);
        std::fill(v + end, v + of.begin[to], 0.0);
        accumulate_sizes(v, plan.high[t], of.begin[l + 1], end, size_before);
      }
      eliminate_columns(block, columns, of, l, to);
      for (int64_t i = 0; i < columns; ++i) {
        const double* v = block + i * height;
        accumulate_sizes(v, plan.high[of.row[of.begin[l] + k + i]], of.begin[l + 1], of.begin[to], size_after);
        double* column = const_cast<double*>(stages[l].columns) + (k + i) * stages[l].stride - stages[l].end;
        for (int64_t j = l + 1; j < to; ++j)
          std::memcpy(column + stages[j].begin, v + of.begin[j],
                      static_cast<size_t>(stages[j].end - stages[j].begin) * sizeof(double));
        std::fill(column + stages[l].extent, column + stages[l].end + stages[l].stride, 0.0);
      }
    }
  }
  eliminate_columns(affine_columns, 3, of, first, last);
  for (int64_t i = from_live; i < n_live; ++i)
    size_after[i] += std::fabs(affine_columns[i]) * shared_.hs + std::fabs(affine_columns[height + i]) * shared_.ht +
                     std::fabs(affine_columns[2 * height + i]);
  // e'_r = e_r + f_r + sum |C_rt| (e'_t + gamma size_t), f_r's own part gamma size_r: Lemma 1 and 4.3.
  const double gamma = static_cast<double>(n_on + 3) * kUnit * (1 + 1e-9);
  for (int64_t i = from_live; i < n_live; ++i) bound[i] += gamma * size_before[i];
  for (int64_t l = first + 1; l < last; ++l) {
    for (int64_t i = of.begin[l]; i < of.begin[l + 1]; ++i) bound[i] *= kInflate;
    if (l >= plan.end) continue;
    const int64_t end = of.end_of(fold, l);
    for (int64_t t = of.on_first[l]; t < of.on_first[l + 1]; ++t) {
      const double each = bound[of.on_live[t]] + gamma * size_after[of.on_live[t]];
      const double* w = on_columns + t * height;
      for (int64_t i = of.begin[l + 1]; i < end; ++i) bound[i] += std::fabs(w[i]) * each;
    }
  }
  for (int64_t l = first; l < last; ++l)
    for (int64_t i = of.begin[l], r = stages[l].begin; r < stages[l].end; ++i, ++r) {
      affine.a[r] = affine_columns[i];
      affine.b[r] = affine_columns[height + i];
      affine.c[r] = affine_columns[2 * height + i];
      affine.p[r] = bound[i] + shared_.prepaid * magnitude(affine, r);
    }
  arena_.release(mark);
  cell.fold = out;
  cell.affine = affine, cell.reach = reach;
  cell.spent = 0;
  const StageView& now = stages[first];
  cell.candidates = {shifted(affine, now.begin), now.end - now.begin, line_numbers_.data() + now.begin};
}

// The rows of a fold that live on in the next, in the order in which they are eliminated, and the columns of those that
// are on.
struct Live {
  int32_t* row;              // their rows in the fold
  int64_t* begin;            // [stages before `end` + 1]: the first of each stage
  int64_t* on;               // [stages]: the first that is on
  int64_t* on_first;         // [stages + 1]: the first on column of each stage
  int64_t* taken_from;       // [stages]: the first stage that it takes anything from
  int64_t* column_end;       // [stages]: the stage before which the next fold's columns of one end
  int64_t* on_live;          // of each on column, its place among the live rows
  const double* on_columns;  // [on columns, height]
  int64_t height, end;

  // One past the last live row that takes from stage l.
  int64_t end_of(const Fold& fold, int64_t l) const {
    int64_t to = end;
    while (to > l + 1 && fold.stages[to - 1].begin >= fold.stages[l].extent) --to;
    return begin[to];
  }
};

// Column t of a stage over the live rows that take from it; returns where these end.
int64_t take_column(const Fold& fold, int64_t l, const Live& of, int64_t t, double* out) const {
  const int64_t end = of.end_of(fold, l);
  gather(column(fold.stages[l], t), of.row, of.begin[l + 1], end, out);
  return end;
}
static void accumulate_sizes(const double* v, double high, int64_t from, int64_t to, double* sizes) {
  for (int64_t i = from; i < to; ++i) sizes[i] += std::fabs(v[i]) * high;
}
// Up to four columns over the live rows before stage `to`: v_r += sum of C_rt v_t over the on rows t of the stages
// after `stage`, in rising order.
static void eliminate_columns(double* columns, int64_t n_columns, const Live& of, int64_t stage, int64_t to) {
  for (int64_t l = stage + 2; l < to; ++l) {
    const int64_t begin = of.on_first[std::max(stage + 1, of.taken_from[l])], end = of.on_first[l];
    if (begin >= end) continue;
    for (int64_t i = of.begin[l]; i < of.begin[l + 1]; i += 2 * kLanes) {
      const int64_t rest = of.begin[l + 1] - i;
      switch (n_columns) {
        case 4: eliminate_rows<4>(columns, of, begin, end, i, rest); break;
        case 3: eliminate_rows<3>(columns, of, begin, end, i, rest); break;
        case 2: eliminate_rows<2>(columns, of, begin, end, i, rest); break;
        default: eliminate_rows<1>(columns, of, begin, end, i, rest);
      }
    }
  }
}
// Rows [i, i + 16) of N columns, by the on columns [begin, end); only `rest` of them are changed.
template <int N>
static void eliminate_rows(double* columns, const Live& of, int64_t begin, int64_t end, int64_t i, int64_t rest) {
  const int64_t height = of.height;
  V low[N], high[N];
  for (int k = 0; k < N; ++k)
    low[k] = load(columns + k * height + i), high[k] = load(columns + k * height + i + kLanes);
  for (int64_t t = begin; t < end; ++t) {
    const V w = load(of.on_columns + t * height + i), x = load(of.on_columns + t * height + i + kLanes);
    const double* from = columns + of.on_live[t];
    for (int k = 0; k < N; ++k) {
      const V v = set(from[k * height]);
      low[k] = multiply_add(w, v, low[k]), high[k] = multiply_add(x, v, high[k]);
    }
  }
  for (int k = 0; k < N; ++k) {
    double out[2 * kLanes];
    store(out, low[k]), store(out + kLanes, high[k]);
    std::memcpy(columns + k * height + i, out,
                static_cast<size_t>(std::min<int64_t>(rest, 2 * kLanes)) * sizeof(double));
  }
}
