// (Part of Engine.) Fold: bounds over the cell say which lines of later stages cannot cross it. Those that are off drop
// out, those that are on are substituted, and a smaller system remains. Bounds only prune: they need be safe, not
// tight.

// What max(z, 0) of a line is between, as lambda * (affine form) +- radius, for all that depends on it.
struct Relaxed {
  Rows4 form;    // its p is the radius
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
  const auto array = [&](int64_t i) { return memory + i * size; };
  Relaxed relaxed{{array(0), array(1), array(2), array(3)}, array(4)};
  const Rows4 form{array(5), array(6), array(7), array(8)};  // a row once what it depends on is relaxed; p: its radius
  uint8_t* fate = arena_.take<uint8_t>(rows);
  std::fill(fate, fate + rows, static_cast<uint8_t>(kGone));
  const double g = static_cast<double>(rows + 32) * kUnit * (1 + 1e-9);

  const Candidates& left = cell.candidates;
  for (int64_t i = 0; i < crossing; ++i) {
    const int64_t r = left.row[i];
    form.a[r] = left.a[i], form.b[r] = left.b[i], form.c[r] = left.c[i];
    form.p[r] = left.p[i] + g * magnitude(form, r);
    fate[r] = kKept;
  }
  for (int64_t r = current.end; r < rows; r += kLanes) {
    const V a = load(cell.affine.a + r), b = load(cell.affine.b + r), c = load(cell.affine.c + r);
    const V size_of = abs(a) * set(shared_.hs) + abs(b) * set(shared_.ht) + abs(c);
    store(form.a + r, a), store(form.b + r, b), store(form.c + r, c);
    store(form.p + r, load(cell.affine.p + r) + set(g) * size_of);
  }
  int64_t kept = crossing, n_on = 0, likely = crossing;
  int32_t* live = arena_.take<int32_t>(rows);
  for (int64_t l = cell.stage; l < n_stages_; ++l) {
    const StageView& stage = fold.stages[l];
    int64_t n = 0;
    if (has_groups(l)) {
      const Fates found = relax_groups(cell, l, form, g, relaxed, fate, live);
      n = found.live, kept += found.kept, n_on += found.on, likely += found.kept;
    }
    for (int64_t r = stage.begin; r < stage.end && !has_groups(l); r += kLanes) {
      const uint32_t valid = stage.end - r >= kLanes ? 0xff : (1u << (stage.end - r)) - 1;
      const Sides sides = relax(cell.polygon, form, r, g, relaxed);
      uint32_t lives = valid & ~sides.off;
      if (l == cell.stage) {
        for (uint32_t rest = lives; rest; rest &= rest - 1) {
          const int64_t t = r + __builtin_ctz(rest);
          if (fate[t] == kKept) live[n++] = static_cast<int32_t>(t);
        }
        continue;
      }
      likely += __builtin_popcount(lives & sides.likely);
      for (; lives; lives &= lives - 1) {
        const int bit = __builtin_ctz(lives);
        const bool on = sides.on >> bit & 1;
        fate[r + bit] = on ? kOn : kKept;
        n_on += on, kept += !on;
        live[n++] = static_cast<int32_t>(r + bit);
      }
    }
    if (l + 1 == n_stages_) {  // nothing takes from what is on there
      n_on -= std::count(fate + stage.begin, fate + stage.end, static_cast<uint8_t>(kOn));
      break;
    }
    if (n) add(form, form, fold, stage, live, n, relaxed.form, live);
  }
  if (!worth_folding(fold, cell.stage, fate, likely, kept, n_on)) {
    arena_.release(mark);
    return;
  }
  ++result_.decisions.folds;
  for (int64_t r = current.end; r < rows; ++r)
    if (fate[r] != kKept) on_[static_cast<size_t>(fold.line[r])] = fate[r] == kOn;
  compact(cell, fate, relaxed.high, kept, n_on);
}

// Whether the cells to come save more multiplications than the fold costs; the factors were found by measuring.
// `likely`: lines that would cross the cell if their relaxed forms were exact; k lines make between 1 + k and 1 + k (k
// + 1) / 2 cells, of which about every second stage is one that multiplies.
bool worth_folding(const Fold& fold, int64_t first, const uint8_t* fate, int64_t likely, int64_t kept,
                   int64_t n_on) const {
  int64_t before = 0, after = 0, kept_later = kept;
  for (int64_t l = first; l < n_stages_; ++l) {
    const StageView& stage = fold.stages[l];
    const int64_t kept_here = std::count(fate + stage.begin, fate + stage.end, static_cast<uint8_t>(kKept));
    kept_later -= kept_here;
    before += (stage.end - stage.begin) * (stage.extent - stage.end + kLanes);
    after += kept_here * (kept_later + kLanes);
  }
  const double k = static_cast<double>(likely), live = static_cast<double>(kept + n_on);
  const double cells = 1 + k + k * k / 8;
  const double saved = 2 * cells * static_cast<double>(before - after) / static_cast<double>(n_stages_ - first);
  const double cost = live * static_cast<double>(kept + 4) * (static_cast<double>(n_on) / 2 + 8);
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
    if (l > first && l + 1 < n_stages_)
      for (int64_t r = old.begin; r < old.end; ++r)
        if (fate[r] == kOn) live[n_live++] = static_cast<int32_t>(r);
  }
  live_begin[n_stages_] = n_live;
  const int64_t height = padded(n_live + 2 * kLanes);  // of a column over live rows
  Affine affine = take_affine(0, kept);
  for (int64_t l = 0; l < n_stages_; ++l) {
    stages[l].extent = kept;
    stages[l].stride = padded(kept - stages[l].end) + kLanes;
    const int64_t n = stages[l].end - stages[l].begin;
    stages[l].columns = n ? arena_.take<double>(n * stages[l].stride) : nullptr;
  }
  Fold* out = arena_.take<Fold>(1);
  *out = {stages, kept, numbers};

  const Arena::Mark mark = arena_.mark();
  // Columns of what is on, over the live rows; then three affine columns, the bound, and what it needs.
  double* on_columns = arena_.take<double>(std::max<int64_t>(1, n_on) * height);
  int64_t* on_live = arena_.take<int64_t>(std::max<int64_t>(1, n_on));  // place of on column i among the live rows
  int64_t* on_first = arena_.take<int64_t>(n_stages_ + 1);              // the first on column of each stage
  int64_t at = 0;
  for (int64_t l = 0; l < n_stages_; ++l) {
    on_first[l] = at;
    for (int64_t i = live_on[l]; i < live_begin[l + 1]; ++i, ++at) {
      on_live[at] = i;
      take_column(fold, l, live[i], live, live_begin, on_columns + at * height);
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
        const int32_t t = live[live_begin[l] + k + i];
        take_column(fold, l, t, live, live_begin, v);
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
        std::fill(to + kept, to + stages[l].end + stages[l].stride, 0.0);
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
  cell.candidates = {shifted(affine, now.begin), now.end - now.begin, line_numbers_.data() + now.begin};
}

// Column t of a stage over the live rows of the stages after it.
void take_column(const Fold& fold, int64_t l, int64_t t, const int32_t* live, const int64_t* live_begin,
                 double* out) const {
  const StageView& stage = fold.stages[l];
  int64_t last = n_stages_;  // the stages from here on take nothing
  while (last > l + 1 && fold.stages[last - 1].begin >= stage.extent) --last;
  gather(column(stage, t), live, live_begin[l + 1], live_begin[last], out);
  std::fill(out + live_begin[last], out + live_begin[n_stages_], 0.0);
}
static void accumulate_sizes(const double* v, double high, int64_t from, int64_t to, double* sizes) {
  for (int64_t i = from; i < to; ++i) sizes[i] += std::fabs(v[i]) * high;
}
// Up to four columns over live rows: v_r += sum of C_rt v_t over the on rows t of the stages after `stage`, in rising
// order.
void eliminate_columns(double* columns, int64_t n_columns, int64_t height, const double* on_columns,
                       const int64_t* on_live, const int64_t* on_first, const int64_t* live_begin,
                       int64_t stage) const {
  for (int64_t l = stage + 2; l < n_stages_; ++l) {
    const OnRows on{on_columns, on_live, on_first[stage + 1], on_first[l]};
    if (on.begin == on.end) continue;
    for (int64_t i = live_begin[l]; i < live_begin[l + 1]; i += 2 * kLanes) {
      const int64_t rest = live_begin[l + 1] - i;
      switch (n_columns) {
        case 4: eliminate_rows<4>(columns, height, on, i, rest); break;
        case 3: eliminate_rows<3>(columns, height, on, i, rest); break;
        case 2: eliminate_rows<2>(columns, height, on, i, rest); break;
        default: eliminate_rows<1>(columns, height, on, i, rest);
      }
    }
  }
}
struct OnRows {
  const double* columns;
  const int64_t* live;
  int64_t begin, end;
};
// Rows [i, i + 16) of N columns; only `rest` of them are changed.
template <int N>
static void eliminate_rows(double* columns, int64_t height, const OnRows& on, int64_t i, int64_t rest) {
  V low[N], high[N];
  for (int k = 0; k < N; ++k)
    low[k] = load(columns + k * height + i), high[k] = load(columns + k * height + i + kLanes);
  for (int64_t t = on.begin; t < on.end; ++t) {
    const V w = load(on.columns + t * height + i), x = load(on.columns + t * height + i + kLanes);
    const double* from = columns + on.live[t];
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
