// csrc/partition/trace.inl -- tracing a segment through the network, compiled once per instruction set. The includer
// defines PLR_MAKE_TRACER (the function's name). Letters and bounds are those of docs/exactness.md, section 11.
#include <algorithm>
#include <cmath>
#include <limits>

#include "trace_rows.inl"

namespace pylinregion {
namespace {

constexpr int64_t kMany = 256;  // breakpoints of a window
constexpr int64_t kBlock = 4;   // events that are gone along together

// A line that has opposite signs at the ends of an interval between events.
struct Crossing {
  int64_t interval;
  int32_t slot, row, line;
  int32_t point;                  // of Tracer::crossing_points_, or -1: not known exactly yet
  bool up, tied;                  // tied: with the crossing before it
  double t, d, z, slope, unsure;  // z: less the kink, at the interval's start; unsure: d of ends with exact signs
};

// A line that is exactly 0 at a breakpoint of the stages before it.
struct Zero {
  int64_t event, slot, row;
  double before, after;  // slopes
};

struct Step {
  double dt, d;   // from the event before; of the event
  double* jumps;  // of the rows, null at the window's ends
};

// Eight rows at an event.
struct Look {
  int64_t event, eight, slot;         // eight: which of the rows
  V before, z, slope, jump, certain;  // z at the event before; z, the slope up to it, its jump, the bound
};

class Tracer final : public SegmentTracer, private Rows {
 public:
  Tracer(const TraceNetwork& network, const TraceOptions& options, const std::atomic<bool>& stop)
      : Rows(network), options_(options), stop_(stop) {
    for (Doubles* each : {&bound_, &gaps_}) each->resize(v_.size());
  }
  void project(const double* points, int64_t n, double* products, double* norms) override {
    Rows::project(points, n, products, norms);
  }

  void trace(const Segment& segment, const double* first, const double* second, double size, Traced& out) override {
    segment_ = segment, first_ = first, second_ = second, size_ = size;
    exact_.set(segment);
    windows_.assign({{0, kWhole}});
    written_ = 0;
    while (!windows_.empty()) {
      restart(windows_.back());
      windows_.pop_back();
      if (run()) write(out);
    }
    out.breakpoints.push_back(written_);
  }

 private:
  // The stages on a window. False if it was cut instead, because it has many breakpoints.
  bool run() {
    projected_ = 0;
    const int64_t last = options_.maps ? count(network_.stages) - 1 : network_.last_with_lines;
    for (int64_t l = 0; l <= last; ++l) {
      if (stop_.load(std::memory_order_relaxed)) throw Interrupted();
      stage_ = &at(network_.stages, l);
      form(at(values_, l));
      if (stage_->slots)
        cut(at(values_, l));
      else
        pass(at(values_, l));
      if (l < network_.last_with_lines && split(l)) return false;
    }
    return true;
  }

  // Cuts the window where that leaves windows with about kMany breakpoints. Bounds of errors grow with the number of
  // breakpoints that a window has, and so does the memory.
  bool split(int64_t l) {
    const int64_t n = breakpoints(), width = window_.end - window_.begin;
    if (n <= kMany) return false;
    const int64_t expected = n * (network_.last_with_lines + 1) / (l + 1), parts = (expected + kMany - 1) / kMany;
    cuts_.assign({window_.begin});
    for (int64_t i = 1; i < parts; ++i) {
      const int64_t k = n * i / parts;  // between events k and k + 1, or where that is in whole units
      const double middle = (event(k).t + event(k + 1).t) / 2;
      const int64_t at = window_.begin + std::llround(middle * static_cast<double>(width));
      if (at > cuts_.back() && at < window_.end) cuts_.push_back(at);
    }
    if (cuts_.size() == 1) return false;
    for (int64_t end = window_.end; !cuts_.empty(); cuts_.pop_back()) {
      windows_.push_back({cuts_.back(), end});
      end = cuts_.back();
    }
    return true;
  }

  // --- kinks ---

  void cut(Values& out) {
    const TraceStage& stage = *stage_;
    const int64_t size = stage.padded, n = breakpoints();
    rounding_ = gamma(2 * n + 16);
    const V infinite = set(std::numeric_limits<double>::infinity());
    for (int64_t i = 0; i < size; i += kLanes) {
      store(sizes_.data() + i, load(sizes_.data() + i) + load(stage.kink_sizes.data() + i));
      const V bound = (load(errors_.data() + i) + load(sizes_.data() + i) * set(rounding_)) * set(kInflate);
      store(bound_.data() + i, options_.force_exact ? infinite : bound);
      const V out_size = load(sizes_.data() + i) * set(stage.lipschitz) + set(stage.largest_intercept);
      store(out_sizes_.data() + i, out_size);
      store(gaps_.data() + i, out_size * set(4 * kUnit));
    }
    out.start.assign(v_.begin(), v_.begin() + size);
    out.slope.assign(a_.begin(), a_.begin() + size);
    crossings_.clear();
    crossing_points_.clear();
    zeros_.clear();
    forget_patterns();
    decisions.filter += (n + 2) * stage.rows * stage.slots;
    stage.slots == 1 ? sweep<true>(out) : sweep<false>(out);
    start(out);
    forget_patterns();
    tie_at_old_breakpoints(out);

    // Old breakpoints and new ones in order.
    std::sort(crossings_.begin(), crossings_.end(), [](const Crossing& x, const Crossing& y) {
      if (x.t != y.t) return x.t < y.t;  // never against the order of intervals
      return x.interval != y.interval ? x.interval < y.interval : x.line < y.line;
    });
    merged_.clear();
    for (int64_t k = 0, c = 0; k < n + 2; ++k) {
      merged_.push_back(at(order_, k));
      const int64_t begin = c;
      while (c < count(crossings_) && at(crossings_, c).interval == k) ++c;
      if (begin < c) insert(begin, c, out);
    }
    reorder(merged_);

    for (int64_t r = stage.rows; r < size; ++r) at(gaps_, r) = at(out_sizes_, r) = 0;
    out.size = norm_of(out_sizes_.data(), size);
    out.error = (stage.lipschitz * error_ + norm_of(gaps_.data(), size)) * kInflate;
    out.noise = stage.lipschitz * noise_ + kUnit * out.size;
  }

  // The signs of all lines at all events, and where they differ. The jumps of rows become those of units. Eight rows at
  // a time go along a few events; where a sign is not told, or is another one than before, they are looked at
  // afterwards.
  template <bool kOneSlot> void sweep(Values& out) {
    const TraceStage& stage = *stage_;
    const int64_t size = stage.padded, eights = size / kLanes, n = breakpoints(), slots = kOneSlot ? 1 : stage.slots;
    const size_t bytes = static_cast<size_t>((n + 2) * slots * eights);
    for (std::vector<uint8_t>* each : {&positive_, &negative_})
      if (each->size() < bytes) each->resize(2 * bytes);
    looks_.resize(static_cast<size_t>(eights * slots * kBlock));
    steps_.assign(static_cast<size_t>(n + 2), {0, 0, nullptr});
    for (int64_t k = 1; k < n + 2; ++k)
      at(steps_, k) = {event(k).t - event(k - 1).t, event(k).d, k <= n ? out.jumps.data() + (k - 1) * size : nullptr};
    const double *const slopes = stage.slope.data(), *const kinks = stage.kink.data();
    const Step* const steps = steps_.data();
    uint8_t *const positive = positive_.data(), *const negative = negative_.data();
    const int64_t an_event = slots * eights;
    Look* const looks = looks_.data();
    for (int64_t first = 0; first < n + 2; first += kBlock) {
      const int64_t last = std::min(n + 2, first + kBlock);
      int64_t n_looks = 0;
      for (int64_t g = 0; g < eights; ++g) {
        const int64_t i = g * kLanes;
        const V reach = load(reach_.data() + i), bound = load(bound_.data() + i);
        V a = load(a_.data() + i), v = load(v_.data() + i);
        for (int64_t k = first; k < last; ++k) {
          const V before = v, slope = a, certain = multiply_add(reach, set(steps[k].d), bound);
          v = multiply_add(a, set(steps[k].dt), v);
          double* const jumps = steps[k].jumps;
          const V jump = jumps ? load(jumps + i) : V{};
          V rate = load(slopes + i);
          for (int64_t s = 0; s < slots; ++s) {
            const V kink = load(kinks + s * size + i), z = v - kink;
            const uint32_t is_above = above(z, certain), is_below = above(-z, certain);
            const int64_t here = k * an_event + s * eights + g, last_time = k ? here - an_event : here;
            positive[here] = static_cast<uint8_t>(is_above), negative[here] = static_cast<uint8_t>(is_below);
            if ((is_above | is_below) != 0xff || positive[last_time] != is_above || negative[last_time] != is_below)
              looks[n_looks++] = {k, g, s, before - kink, z, slope, jump, certain};
            rate = select(is_above, load(slopes + (s + 1) * size + i), rate);
          }
          a += jump;
          if (jumps) store(jumps + i, rate * jump);
        }
        store(a_.data() + i, a);
        store(v_.data() + i, v);
      }
      for (const Look* look = looks; look < looks + n_looks; ++look) look_at(*look);
    }
  }

  int64_t byte(int64_t event, int64_t eight, int64_t slot) const {
    return (event * stage_->slots + slot) * (stage_->padded / kLanes) + eight;
  }
  int64_t per_event() const { return stage_->slots * (stage_->padded / kLanes); }

  // Eight rows at a breakpoint where one of them is uncertain, or has another sign than at the one before.
  void look_at(const Look& look) {
    double* const jumps = at(steps_, look.event).jumps;
    uint8_t *up = &at(positive_, byte(look.event, look.eight, look.slot)),
            *down = &at(negative_, byte(look.event, look.eight, look.slot));
    for (uint32_t rest = ~(*up | *down) & 0xffu; rest; rest &= rest - 1) {
      const int bit = __builtin_ctz(rest);
      const int sign = doubtful(look, bit);
      if (sign > 0) *up = static_cast<uint8_t>(*up | 1u << bit);
      if (sign < 0) *down = static_cast<uint8_t>(*down | 1u << bit);
      if (!jumps || sign <= 0) continue;
      const int64_t row = look.eight * kLanes + bit;
      int64_t piece = 0;
      for (int64_t s = 0; s < stage_->slots; ++s) piece += at(positive_, byte(look.event, look.eight, s)) >> bit & 1;
      jumps[row] = at(stage_->slope, piece * stage_->padded + row) * look.jump[bit];
    }
    if (look.event == 0) return;
    const uint8_t *up_before = up - per_event(), *down_before = down - per_event();
    for (uint32_t rest = (*up_before & *down) | (*down_before & *up); rest; rest &= rest - 1) {
      const int bit = __builtin_ctz(rest);
      cross(look, bit, *up >> bit & 1);
    }
  }

  // The sign of a line at an event, in integers.
  int doubtful(const Look& look, int bit) {
    const int64_t k = look.event, n = breakpoints(), r = look.eight * kLanes + bit;
    const int32_t line = at(stage_->line, look.slot * stage_->padded + r);
    const double z = look.z[bit];
    if (line < 0) return -1;
    int sign = 0;
    if (look.certain[bit] != 0 || z != 0) {  // else it is a row of zeros
      if (stop_.load(std::memory_order_relaxed)) throw Interrupted();
      ++decisions.exact;
      --decisions.filter;
      sign = sign_at(exact_row(line, std::min(k, n)), point(k));
      decisions.zeros += sign == 0;
      const bool agrees = sign != 0 && sign == (z > 0) - (z < 0);
      at(gaps_, r) += bend(r, look.slot) * ((agrees ? 0 : 2 * std::fabs(z)) + 4 * rounding_ * at(sizes_, r)) * kInflate;
    }
    if (sign == 0 && k >= 1 && k <= n)
      zeros_.push_back({k, look.slot, r, look.slope[bit], look.slope[bit] + look.jump[bit]});
    return sign;
  }
  // The slopes of the pieces beside a kink, added up: by how much a unit can be off for each unit that z is.
  double bend(int64_t row, int64_t slot) const {
    const int64_t low = slot * stage_->padded + row;
    return std::fabs(at(stage_->slope, low)) + std::fabs(at(stage_->slope, low + stage_->padded));
  }

  // A line has opposite signs at the ends of the interval before an event.
  void cross(const Look& look, int bit, bool up) {
    const Event &from = event(look.event - 1), &to = event(look.event);
    const int64_t row = look.eight * kLanes + bit;
    crossings_.emplace_back();
    Crossing& x = crossings_.back();
    x.interval = look.event - 1;
    x.slot = static_cast<int32_t>(look.slot), x.row = static_cast<int32_t>(row);
    x.line = at(stage_->line, look.slot * stage_->padded + row);
    x.up = up, x.tied = false, x.point = -1;
    x.z = look.before[bit], x.slope = look.slope[bit];
    double part = x.z / (x.z - look.z[bit]);
    part = std::isnan(part) ? 0.5 : std::min(1.0, std::max(0.0, part));
    x.t = std::min(to.t, from.t + part * (to.t - from.t));
    x.unsure = std::max(sure(row, x.z, from) ? 0.0 : from.d, sure(row, look.z[bit], to) ? 0.0 : to.d);
    x.d = distance(x, x.t);
  }
  bool sure(int64_t row, double z, const Event& event) const {  // whether the filter tells the sign
    return std::fabs(z) > at(reach_, row) * event.d + at(bound_, row);
  }
  double residual(const Crossing& x, double t) const { return std::fabs(x.z + x.slope * (t - event(x.interval).t)); }
  // Whether a crossing is further away than this, by an estimate: the noise of its row over its slope.
  bool is_noisy(const Crossing& x, double far) const {
    return !(noise_ * (at(errors_, x.row) / error_) <= far * std::fabs(x.slope));
  }
  // How far t is from the exact crossing, at most.
  double distance(const Crossing& x, double t) const {
    const Event &from = event(x.interval), &to = event(x.interval + 1);
    const double whole = to.t - from.t + std::max(from.d, to.d);
    const double slope = std::fabs(x.slope) - rounding_ * at(sizes_, x.row);
    const double near = x.unsure + (at(bound_, x.row) + at(reach_, x.row) * x.unsure + residual(x, t)) / slope;
    return (slope > 0 && near < whole ? near : whole) * kInflate + kQuotientUnderflow;
  }

  // Whether a unit is above a kink in the interval that begins at event k, before it crosses it there; if `ends`, in
  // the interval that ends at k, after it crossed.
  bool state(int64_t k, int64_t row, int64_t slot, bool ends = false) const {
    const int64_t here = byte(k, row / kLanes, slot);
    const int bit = static_cast<int>(row % kLanes);
    if ((at(positive_, here) | at(negative_, here)) >> bit & 1) return at(positive_, here) >> bit & 1;
    return at(positive_, ends ? here - per_event() : here + per_event()) >> bit & 1;
  }

  // The first region: pieces, and the units at the start.
  void start(Values& out) {
    const TraceStage& stage = *stage_;
    const int64_t size = stage.padded;
    for (int64_t i = 0; i < size; i += kLanes) {
      V slope = load(stage.slope.data() + i), intercept = load(stage.intercept.data() + i);
      for (int64_t s = 0; s < stage.slots; ++s) {
        const int64_t here = byte(0, i / kLanes, s), next = here + per_event();
        const uint32_t known = at(positive_, here) | at(negative_, here);
        const uint32_t on = at(positive_, here) | (at(positive_, next) & ~known);  // as state() has it
        const int32_t* line = stage.line.data() + s * size + i;
        for (int bit = 0; bit < kLanes; ++bit)
          if (line[bit] >= 0) at(on_, line[bit]) = on >> bit & 1;
        slope = select(on, load(stage.slope.data() + (s + 1) * size + i), slope);
        intercept = select(on, load(stage.intercept.data() + (s + 1) * size + i), intercept);
      }
      store(out.start.data() + i, load(out.start.data() + i) * slope + intercept);
      store(out.slope.data() + i, load(out.slope.data() + i) * slope);
    }
  }

  // Lines that are 0 at a breakpoint of earlier stages may change there.
  void tie_at_old_breakpoints(Values& out) {
    const TraceStage& stage = *stage_;
    for (const Zero& zero : zeros_) {
      const int64_t k = zero.event;
      int64_t before = 0, after = 0;  // pieces
      for (int64_t s = 0; s < stage.slots; ++s) {
        if (at(stage.line, s * stage.padded + zero.row) < 0) break;
        before += state(k, zero.row, s, true);
        after += state(k, zero.row, s);
      }
      at(out.jumps, (k - 1) * stage.padded + zero.row) =
          at(stage.slope, after * stage.padded + zero.row) * zero.after -
          at(stage.slope, before * stage.padded + zero.row) * zero.before;
      if (before == after) continue;
      at(out_sizes_, zero.row) += bend(zero.row, zero.slot) * at(reach_, zero.row);
      change(event(k), at(stage.line, zero.slot * stage.padded + zero.row));
    }
  }

  // New breakpoints in one interval.
  void insert(int64_t begin, int64_t end, Values& out) {
    if (end - begin > 1) put_in_order(begin, end);
    const int64_t k = at(crossings_, begin).interval, size = stage_->padded;
    const double last = event(k + 1).t, width = window_.width();
    double t = event(k).t, *jumps = nullptr;
    for (int64_t i = begin; i < end; ++i) {
      Crossing& x = at(crossings_, i);
      if (!x.tied) {
        const double least = t;
        t = std::min(last, std::max(least, x.t));
        double d = distance(x, t);
        if (d * width > kFar || is_noisy(x, kOff / width)) {
          const double exactly = (position_of(point_of(x)) - window_.t()) / width;
          t = std::min(last, std::max(least, exactly));
          d = std::min(d, (std::fabs(t - exactly) + 16 * kUnit / width) * kInflate);
        }
        const int32_t number = add(t, d, x.line);
        merged_.push_back(number);
        if (x.point >= 0) points_[number] = at(crossing_points_, x.point);
        out.events.push_back(number);
        jumps = room(out.jumps, count(out.events) * size) + (count(out.events) - 1) * size;
        std::fill_n(jumps, size, 0.0);
      }
      const int64_t low = x.slot * size + x.row;
      const double rise = at(stage_->slope, low + size) - at(stage_->slope, low), b = bend(x.row, x.slot);
      jumps[x.row] = x.up ? rise * x.slope : -(rise * x.slope);
      change(events_.back(), x.line);
      at(gaps_, x.row) += b * (2 * residual(x, t) + 4 * rounding_ * at(sizes_, x.row)) * kInflate;
      at(out_sizes_, x.row) += b * std::fabs(x.slope) * kInflate;
    }
  }

  bool certain(const Crossing& x, const Crossing& y) const {
    return std::fabs(x.t - y.t) > (x.d + y.d) * kInflate + 4 * kUnit && !options_.force_exact;
  }
  void put_in_order(int64_t begin, int64_t end) {
    const auto first = crossings_.begin() + begin, last = crossings_.begin() + end;
    decisions.filter += end - begin - 1;
    bool clear = true;
    for (auto x = first; x + 1 != last && clear; ++x) clear = certain(*x, *(x + 1));
    if (clear) return;
    // By exact comparisons where need be; a merge of sorted halves would do fewer, but there are few to do.
    for (auto x = first + 1; x != last; ++x) {
      if (stop_.load(std::memory_order_relaxed)) throw Interrupted();
      for (auto y = x; y != first && !certain(*(y - 1), *y); --y) {
        ++decisions.exact;
        if (exact_order(*(y - 1), *y) <= 0) break;
        std::swap(*(y - 1), *y);
      }
    }
    for (auto x = first + 1; x != last; ++x) {
      if (certain(*(x - 1), *x)) continue;
      --decisions.filter;
      x->tied = exact_order(*(x - 1), *x) == 0;
      decisions.zeros += x->tied;
    }
  }

  // --- integers ---

  const SegmentPoint& point_of(Crossing& x) {
    if (x.point < 0) {
      x.point = static_cast<int32_t>(crossing_points_.size());
      crossing_points_.push_back(zero_of(exact_row(x.line, x.interval)));
    }
    return at(crossing_points_, x.point);
  }
  int exact_order(Crossing& x, Crossing& y) {
    point_of(x), point_of(y);  // the second may move the first
    return order(point_of(x), point_of(y));
  }
  // --- results ---

  // Adds the window to the segment.
  void write(Traced& out) {
    const int64_t n = breakpoints(), lines = count(on_);
    const double begin = window_.t(), width = window_.width();
    const auto add = [&](double t, int64_t changed) {
      out.t.push_back(std::min(1 - kUnit, std::max(std::numeric_limits<double>::denorm_min(), t)));
      out.change_counts.push_back(changed);
      if (changed > 1) std::sort(out.changes.end() - changed, out.changes.end());
      ++written_;
    };
    bool new_region = true;  // the first, or what begins where the last window ended
    if (window_.begin == 0) {
      if (options_.starts) {
        const int64_t bytes = (lines + 7) / 8, from = count(out.starts);
        out.starts.insert(out.starts.end(), static_cast<size_t>(bytes), 0);
        for (int64_t r = 0; r < lines; ++r)
          at(out.starts, from + r / 8) = static_cast<uint8_t>(at(out.starts, from + r / 8) | at(on_, r) << r % 8);
      }
    } else {
      const int64_t before = count(out.changes);
      for (int64_t r = 0; r < lines; ++r)
        if (at(on_, r) != at(last_on_, r)) out.changes.push_back(static_cast<int32_t>(r));
      new_region = count(out.changes) > before;
      if (new_region) add(begin, count(out.changes) - before);
    }
    for (int64_t k = 1; k <= n; ++k) {
      int64_t changed = 0;
      for (int32_t c = event(k).change; c >= 0; c = at(changes_, c).next, ++changed)
        out.changes.push_back(at(changes_, c).line);
      add(begin + event(k).t * width, changed);
    }
    if (!windows_.empty()) {
      last_on_ = on_;
      for (const Change& each : changes_) at(last_on_, each.line) ^= 1;
    }
    if (options_.maps) write_maps(out, new_region);
  }

  // Sums of jumps keep what rounding did on the steepest piece. Where that is too much for a region, its map is NaN.
  void write_maps(Traced& out, bool first) {
    Values& values = values_.back();
    const int64_t n = breakpoints(), outputs = network_.outputs, size = network_.stages.back().padded;
    const double begin = window_.t(), scale = 1 / window_.width();
    const double least = values.noise / kMapError, least_slope = least * scale,
                 least_value = least + least_slope * begin;
    double *slope = values.slope.data(), *value = values.start.data();  // at the window's start
    const size_t written = out.maps.size();
    out.maps.resize(written + static_cast<size_t>((n + first) * outputs * 2));
    double* to = out.maps.data() + written;
    const auto add = [&] {
      double largest_slope = 0, largest_value = 0;  // of what the same noise is in all
      for (int64_t o = 0; o < outputs; ++o) {
        to[2 * o] = slope[o] * scale;
        to[2 * o + 1] = value[o] - to[2 * o] * begin;
        largest_slope = std::max(largest_slope, std::fabs(to[2 * o]) * at(network_.output_scales, o));
        largest_value = std::max(largest_value, std::fabs(to[2 * o + 1]) * at(network_.output_scales, o));
      }
      if (!(largest_slope >= least_slope && largest_value >= least_value))
        std::fill_n(to, 2 * outputs, std::numeric_limits<double>::quiet_NaN());
      to += 2 * outputs;
    };
    if (first) add();
    rows_.assign(static_cast<size_t>(n + 2), -1);
    for (int64_t i = 0; i < count(values.events); ++i) at(rows_, at(events_, at(values.events, i)).place) = i;
    for (int64_t k = 1; k <= n; ++k, add()) {
      if (at(rows_, k) < 0) continue;
      const double* jumps = values.jumps.data() + at(rows_, k) * size;
      const V t = set(event(k).t);
      for (int64_t i = 0; i < size; i += kLanes) {
        const V jump = load(jumps + i);
        store(slope + i, load(slope + i) + jump);
        store(value + i, load(value + i) - jump * t);
      }
    }
  }

  const TraceOptions options_;
  const std::atomic<bool>& stop_;

  // The segment.
  std::vector<Window> windows_;  // that follow, the next one last
  std::vector<int64_t> cuts_;
  std::vector<uint8_t> last_on_;  // at the end of the window before
  int64_t written_ = 0;           // breakpoints of the segment so far

  // The window.
  std::vector<int32_t> merged_;

  // The stage.
  Doubles bound_, gaps_;  // [padded]
  double rounding_ = 0;
  std::vector<uint8_t> positive_, negative_;  // [events][slots][eight rows]: a bit a row
  std::vector<Step> steps_;
  Array<Look> looks_;
  std::vector<Crossing> crossings_;
  std::vector<SegmentPoint> crossing_points_;
  std::vector<Zero> zeros_;
  std::vector<int64_t> rows_;
};

}  // namespace

std::unique_ptr<SegmentTracer> PLR_MAKE_TRACER(const TraceNetwork& network, const TraceOptions& options,
                                               const std::atomic<bool>& stop) {
  return std::make_unique<Tracer>(network, options, stop);
}

}  // namespace pylinregion
