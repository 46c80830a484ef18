// (Part of Engine.) Fold: bounds over the cell say which lines of later stages cannot cross it. Those that are off drop
// out, those that are on are substituted, and a smaller system remains. Bounds only prune: they need be safe, not
// tight.

// What max(z, 0) of a line is between, as lambda * (affine form) +- radius, for all that depends on it.
struct Relaxed {
  double *a, *b, *c, *w;
  double* high;  // upper bound of max(z, 0)
};
enum Fate : uint8_t { kGone, kKept, kOn };

void refold(Cell& cell) {
  const Fold& fold = *cell.fold;
  const StageView& current = fold.stages[cell.stage];
  const int64_t later = fold.rows - current.end, crossing = cell.candidates.n;
  if (later < kWorthFolding || (cell.attempt != INT64_MAX && 10 * crossing > 6 * cell.attempt)) return;
  cell.attempt = crossing;

  const Arena::Mark mark = arena_.mark();
  const int64_t rows = fold.rows, size = padded(rows + kLanes);
  double* memory = arena_.take<double>(9 * size);
  Relaxed relaxed{memory, memory + size, memory + 2 * size, memory + 3 * size, memory + 4 * size};
  // The affine form that a row has after relaxing what it depends on, and its radius.
  Affine form{memory + 5 * size, memory + 6 * size, memory + 7 * size, memory + 8 * size};
  uint8_t* fate = arena_.take<uint8_t>(rows);
  std::fill(fate, fate + rows, static_cast<uint8_t>(kGone));
  const double g = static_cast<double>(rows + 32) * kUnit * (1 + 1e-9);

  const Candidates& left = cell.candidates;
  for (int64_t i = 0; i < crossing; ++i) {
    const int64_t r = left.row[i];
    form.a[r] = left.a[i], form.b[r] = left.b[i], form.c[r] = left.c[i];
    form.p[r] = left.p[i] + g * magnitude(form, r);
    const Interval z = range(cell.polygon, form, r, g);
    fate[r] = kKept;
    relax(relaxed, form, r, z, g);
  }
  for (int64_t r = current.end; r < rows; ++r) {
    form.a[r] = cell.affine.a[r], form.b[r] = cell.affine.b[r], form.c[r] = cell.affine.c[r];
    form.p[r] = cell.affine.p[r] + g * magnitude(form, r);
  }
  int64_t kept = crossing, n_on = 0;
  for (int64_t l = cell.stage; l < n_stages_; ++l) {
    const StageView& stage = fold.stages[l];
    if (l > cell.stage) {
      for (int64_t r = stage.begin; r < stage.end; ++r) {
        const Interval z = range(cell.polygon, form, r, g);
        if (z.high < 0) continue;
        fate[r] = z.low > 0 ? kOn : kKept;
        if (z.low > 0) {
          ++n_on;
          relaxed.a[r] = form.a[r], relaxed.b[r] = form.b[r], relaxed.c[r] = form.c[r];
          relaxed.w[r] = form.p[r] + g * (magnitude(form, r) + z.high);
          relaxed.high[r] = z.high;
        } else {
          ++kept;
          relax(relaxed, form, r, z, g);
        }
      }
    }
    push_forms(stage, fate, relaxed, form);
  }
  const int64_t before = later + (current.end - current.begin), gain = before - kept;
  if (gain < kWorthFolding || 10 * kept > 6 * before) {
    arena_.release(mark);
    return;
  }
  ++result_.decisions.folds;
  for (int64_t r = current.end; r < rows; ++r)
    if (fate[r] != kKept) on_[static_cast<size_t>(fold.line[r])] = fate[r] == kOn;
  compact(cell, fate, relaxed.high, kept, n_on);
}

struct Interval {
  double low, high;
};
Interval range(const Polygon& polygon, const Affine& form, int64_t r, double g) const {
  double low = INFINITY, high = -INFINITY;
  for (int64_t v = 0; v < polygon.n; ++v) {
    const double z = form.a[r] * polygon.x[v] + form.b[r] * polygon.y[v] + form.c[r];
    low = std::min(low, z), high = std::max(high, z);
  }
  const double slack =
      (form.p[r] + (std::fabs(form.a[r]) + std::fabs(form.b[r])) * polygon.d_max + 16 * kUnit * magnitude(form, r)) *
      (1 + 8 * g);
  if (!(slack < INFINITY)) return {-INFINITY, INFINITY};
  return {low - slack, high + slack};
}
// max(z, 0) for z = form +- p in [low, high] lies within lambda * form + mu +- (mu + lambda p).
void relax(Relaxed& out, const Affine& form, int64_t r, Interval z, double g) const {
  const double low = std::min(z.low, 0.0), high = std::max(z.high, 0.0);
  out.high[r] = high;
  if (!(high < INFINITY) || !(low > -INFINITY)) {
    out.a[r] = out.b[r] = out.c[r] = 0;
    out.w[r] = INFINITY;
    return;
  }
  const double lambda = high > low ? high / (high - low) : 0, mu = -lambda * low / 2;
  out.a[r] = lambda * form.a[r], out.b[r] = lambda * form.b[r], out.c[r] = lambda * form.c[r] + mu;
  out.w[r] = mu + lambda * form.p[r] + g * (lambda * magnitude(form, r) + high + mu);
}
// form += C * relaxed for the columns of a stage that are not gone.
void push_forms(const StageView& stage, const uint8_t* fate, const Relaxed& from, Affine& form) {
  const Arena::Mark mark = arena_.mark();
  int32_t* live = arena_.take<int32_t>(stage.end - stage.begin);
  int64_t n = 0;
  for (int64_t t = stage.begin; t < stage.end; ++t)
    if (fate[t] != kGone) live[n++] = static_cast<int32_t>(t);
  int64_t r = stage.end;
  for (; r + kLanes <= stage.extent; r += kLanes) {
    V a = load(form.a + r), b = load(form.b + r), c = load(form.c + r), p = load(form.p + r);
    for (int64_t i = 0; i < n; ++i) {
      const int32_t t = live[i];
      const V w = load(column(stage, t) + r);
      a = multiply_add(w, set(from.a[t]), a);
      b = multiply_add(w, set(from.b[t]), b);
      c = multiply_add(w, set(from.c[t]), c);
      p = multiply_add(abs(w), set(from.w[t]), p);
    }
    store(form.a + r, a), store(form.b + r, b), store(form.c + r, c), store(form.p + r, p);
  }
  for (; r < stage.extent; ++r)
    for (int64_t i = 0; i < n; ++i) {
      const int32_t t = live[i];
      const double w = column(stage, t)[r];
      form.a[r] += w * from.a[t], form.b[r] += w * from.b[t], form.c[r] += w * from.c[t];
      form.p[r] += std::fabs(w) * from.w[t];
    }
  arena_.release(mark);
}

// A system of the rows that are kept; those that are on are eliminated, stage by stage, as a Schur complement:
//   X_rc = C_rc + sum over on rows t of C_rt X_tc, for the kept columns c and the affine part.
void compact(Cell& cell, const uint8_t* fate, const double* high, int64_t kept, int64_t n_on) {
  const Fold& fold = *cell.fold;
  const int64_t first = cell.stage;
  // The rows that live on, stage by stage: kept ones first, then those that are on.
  StageView* stages = arena_.take<StageView>(n_stages_);
  int32_t* numbers = arena_.take<int32_t>(kept);
  int64_t* live_begin = arena_.take<int64_t>(n_stages_ + 1);
  int64_t* live_on = arena_.take<int64_t>(n_stages_);
  int32_t* live = arena_.take<int32_t>(kept + n_on);
  int64_t n_live = 0, n_rows = 0;
  for (int64_t l = 0; l < n_stages_; ++l) {
    const StageView& old = fold.stages[l];
    live_begin[l] = n_live;
    stages[l].begin = n_rows;
    if (l >= first)
      for (int64_t r = old.begin; r < old.end; ++r)
        if (fate[r] == kKept) live[n_live++] = static_cast<int32_t>(r), numbers[n_rows++] = fold.line[r];
    live_on[l] = n_live;
    stages[l].end = n_rows;
    if (l > first)
      for (int64_t r = old.begin; r < old.end; ++r)
        if (fate[r] == kOn) live[n_live++] = static_cast<int32_t>(r);
  }
  live_begin[n_stages_] = n_live;
  const int64_t height = padded(n_live + kLanes);  // of a column over live rows
  Affine affine = take_affine(0, kept);
  for (int64_t l = 0; l < n_stages_; ++l) {
    stages[l].extent = kept;
    stages[l].stride = padded(kept - stages[l].end) + kLanes;
    const int64_t n = stages[l].end - stages[l].begin;
    double* memory = n ? arena_.take<double>(n * stages[l].stride) : nullptr;
    if (memory) std::fill(memory, memory + n * stages[l].stride, 0.0);
    stages[l].columns = memory;
  }
  Fold* out = arena_.take<Fold>(1);
  *out = {stages, kept, numbers};

  const Arena::Mark mark = arena_.mark();
  // Columns of what is on, over the live rows; then three affine columns, the bound, and what it needs.
  double* on_columns = arena_.take<double>(std::max<int64_t>(1, n_on) * height);
  std::fill(on_columns, on_columns + n_on * height, 0.0);
  int64_t* on_live = arena_.take<int64_t>(std::max<int64_t>(1, n_on));  // place of on column i among the live rows
  int64_t* on_first = arena_.take<int64_t>(n_stages_ + 1);              // the first on column of each stage
  int64_t at = 0;
  for (int64_t l = 0; l < n_stages_; ++l) {
    on_first[l] = at;
    for (int64_t i = live_on[l]; i < live_begin[l + 1]; ++i, ++at) {
      on_live[at] = i;
      gather(fold.stages[l], live[i], live, live_begin[l + 1], n_live, on_columns + at * height);
    }
  }
  on_first[n_stages_] = at;
  double* affine_columns = arena_.take<double>(3 * height);
  double* bound = arena_.take<double>(height);        // the residual bound of a row
  double* size_before = arena_.take<double>(height);  // |A_r| + sum |C_rc| high_c, of the row as it was
  double* size_after = arena_.take<double>(height);
  for (int64_t i = 0; i < height; ++i) bound[i] = size_before[i] = size_after[i] = 0;
  std::fill(affine_columns, affine_columns + 3 * height, 0.0);
  for (int64_t i = 0; i < n_live; ++i) {
    const int64_t r = live[i], k = i;
    const bool now = i < live_begin[first + 1];
    const Candidates& left = cell.candidates;
    const double a = now ? left.a[k] : cell.affine.a[r], b = now ? left.b[k] : cell.affine.b[r],
                 c = now ? left.c[k] : cell.affine.c[r];
    affine_columns[i] = a, affine_columns[height + i] = b, affine_columns[2 * height + i] = c;
    bound[i] = now ? left.p[k] : cell.affine.p[r];
    size_before[i] = std::fabs(a) * shared_.hs + std::fabs(b) * shared_.ht + std::fabs(c);
  }
  const int64_t from_live = live_begin[first + 1];
  const auto eliminate = [&](double* columns, int64_t n_columns, int64_t stage) {
    eliminate_columns(columns, n_columns, height, on_columns, on_live, on_first, live_begin, stage);
  };
  constexpr int64_t kBlock = 4;
  double* block = arena_.take<double>(kBlock * height);
  for (int64_t l = first; l < n_stages_; ++l) {
    const int64_t n = stages[l].end - stages[l].begin;
    for (int64_t k = 0; k < n; k += kBlock) {
      const int64_t columns = std::min(kBlock, n - k);
      for (int64_t i = 0; i < columns; ++i) {
        double* v = block + i * height;
        std::fill(v, v + height, 0.0);
        const int32_t t = live[live_begin[l] + k + i];
        gather(fold.stages[l], t, live, live_begin[l + 1], n_live, v);
        accumulate_sizes(v, high[t], live_begin[l + 1], n_live, size_before);
      }
      eliminate(block, columns, l);
      for (int64_t i = 0; i < columns; ++i) {
        const double* v = block + i * height;
        accumulate_sizes(v, high[live[live_begin[l] + k + i]], live_begin[l + 1], n_live, size_after);
        double* to = const_cast<double*>(stages[l].columns) + (k + i) * stages[l].stride - stages[l].end;
        for (int64_t j = l + 1; j < n_stages_; ++j)
          std::memcpy(to + stages[j].begin, v + live_begin[j],
                      static_cast<size_t>(stages[j].end - stages[j].begin) * sizeof(double));
      }
    }
  }
  eliminate(affine_columns, 3, first);
  for (int64_t i = from_live; i < n_live; ++i)
    size_after[i] += std::fabs(affine_columns[i]) * shared_.hs + std::fabs(affine_columns[height + i]) * shared_.ht +
                     std::fabs(affine_columns[2 * height + i]);
  // e'_r = e_r + f_r + sum |C_rt| (e'_t + gamma size_t), f_r's own part gamma size_r: Lemma 1 and 4.3.
  const double gamma = static_cast<double>(n_on + 3) * kUnit * (1 + 1e-9);
  for (int64_t i = from_live; i < n_live; ++i) bound[i] += gamma * size_before[i];
  for (int64_t l = first + 1; l < n_stages_; ++l) {
    for (int64_t i = live_begin[l]; i < live_begin[l + 1]; ++i) bound[i] *= kInflate;
    for (int64_t t = on_first[l]; t < on_first[l + 1]; ++t) {
      const double each = bound[on_live[t]] + gamma * size_after[on_live[t]];
      const double* w = on_columns + t * height;
      for (int64_t i = live_begin[l + 1]; i < n_live; ++i) bound[i] += std::fabs(w[i]) * each;
    }
  }
  for (int64_t l = first; l < n_stages_; ++l)
    for (int64_t i = live_begin[l], r = stages[l].begin; r < stages[l].end; ++i, ++r) {
      affine.a[r] = affine_columns[i];
      affine.b[r] = affine_columns[height + i];
      affine.c[r] = affine_columns[2 * height + i];
      affine.p[r] = bound[i] + shared_.prepaid * magnitude(affine, r);
    }
  arena_.release(mark);
  cell.fold = out;
  cell.affine = affine;
  cell.spent = 0;
  const StageView& now = stages[first];
  int32_t* row = arena_.take<int32_t>(padded(now.end - now.begin));
  for (int64_t i = 0; i < now.end - now.begin; ++i) row[i] = static_cast<int32_t>(now.begin + i);
  cell.candidates = {now.end - now.begin,  affine.a + now.begin, affine.b + now.begin,
                     affine.c + now.begin, affine.p + now.begin, row};
}

// Column t over the live rows [from, to).
static void gather(const StageView& stage, int64_t t, const int32_t* live, int64_t from, int64_t to, double* out) {
  const double* in = column(stage, t);
  for (int64_t i = from; i < to; ++i) out[i] = live[i] < stage.extent ? in[live[i]] : 0;
}
static void accumulate_sizes(const double* v, double high, int64_t from, int64_t to, double* sizes) {
  for (int64_t i = from; i < to; ++i) sizes[i] += std::fabs(v[i]) * high;
}
// Columns over live rows: v_r += sum of C_rt v_t over the on rows t of the stages after `stage`, in rising order.
void eliminate_columns(double* columns, int64_t n_columns, int64_t height, const double* on_columns,
                       const int64_t* on_live, const int64_t* on_first, const int64_t* live_begin,
                       int64_t stage) const {
  for (int64_t l = stage + 2; l < n_stages_; ++l) {
    const int64_t t_begin = on_first[stage + 1], t_end = on_first[l];
    if (t_begin == t_end) continue;
    // Whole vectors: what they change of the next stage's rows is put back.
    const int64_t begin = live_begin[l], end = live_begin[l + 1];
    for (int64_t i = begin; i < end; i += kLanes) {
      V sum[4];
      double* at[4];
      for (int64_t k = 0; k < n_columns; ++k) at[k] = columns + k * height + i, sum[k] = load(at[k]);
      for (int64_t t = t_begin; t < t_end; ++t) {
        const V w = load(on_columns + t * height + i);
        for (int64_t k = 0; k < n_columns; ++k) sum[k] = multiply_add(w, set(columns[k * height + on_live[t]]), sum[k]);
      }
      const int64_t rest = end - i;
      for (int64_t k = 0; k < n_columns; ++k) {
        if (rest >= kLanes) {
          store(at[k], sum[k]);
        } else {
          for (int64_t j = 0; j < rest; ++j) at[k][j] = sum[k][j];
        }
      }
    }
  }
}
