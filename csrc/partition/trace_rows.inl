// csrc/partition/trace_rows.inl -- the rows of a stage along a window, with bounds of their errors. Included
// by trace.inl, once per instruction set. Letters and bounds are those of docs/exactness.md, section 11.
#include <algorithm>
#include <cmath>

#include "../rounding.h"
#include "products.inl"
#include "timeline.h"

namespace pylinregion {
namespace {

// Room for n numbers that keeps what was there.
inline double* room(Doubles& values, int64_t n) {
  if (count(values) < n) values.resize(static_cast<size_t>(n + n / 2));
  return values.data();
}

// An upper bound of the 2-norm.
inline double norm_of(const double* x, int64_t n) {
  V sum{};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) sum = multiply_add(load(x + i), load(x + i), sum);
  double total = 0;
  for (; i < n; ++i) total += x[i] * x[i];
  for (i = 0; i < kLanes; ++i) total += sum[i];
  return std::sqrt(total) * kInflate + kNormUnderflow;
}

// The units of a stage along the window: start + slope t + the sum of jumps max(t - t_event, 0).
struct Values {
  Doubles start, slope;         // [padded]
  std::vector<int32_t> events;  // their numbers
  Doubles jumps;                // [events, padded]
  double error;                 // >= 2-norm of the difference to the exact units, anywhere on the window
  double size;                  // >= 2-norm of |start| + |slope| + sum |jumps|
  double noise;                 // about the 2-norm of what rounding has changed these sums by
};

class Rows : protected Timeline {
 protected:
  explicit Rows(const TraceNetwork& network)
      : Timeline(network.digits, network.lines), network_(network), values_(network.stages.size()) {
    int64_t widest = 0;
    for (const TraceStage& stage : network.stages) widest = std::max(widest, stage.padded);
    for (Doubles* each : {&v_, &a_, &reach_, &sizes_, &errors_, &out_sizes_})
      each->assign(static_cast<size_t>(widest), 0.0);
  }

  void project(const double* points, int64_t n, double* products, double* norms) {
    from_.clear();
    for (int64_t i = 0; i < n; ++i) {
      from_.push_back(points + i * network_.dimensions);
      norms[i] = norm_of(from_.back(), network_.dimensions);
    }
    for (const TraceStage& stage : network_.stages)
      for (const TraceBlock& block : stage.blocks) {
        if (block.source >= 0) continue;
        to_.clear();
        for (int64_t i = 0; i < n; ++i) to_.push_back(products + i * network_.input_rows);
        products_.multiply(block, stage.padded, from_.data(), to_.data(), n, reach_.data(), false);
        products += stage.padded;
      }
  }

  // The stage's rows: start, slope and jumps; bounds of their errors.
  void form(Values& out) {
    const TraceStage& stage = *stage_;
    const int64_t size = stage.padded, n = breakpoints();
    out.events.assign(order_.begin() + 1, order_.end() - 1);
    double* const jumps = room(out.jumps, n * size);
    const int64_t only = stage.blocks.size() == 1 ? stage.blocks[0].source : -1;
    const bool more = (stage.blocks.size() != 1 || n) && (only < 0 || count(at(values_, only).events) != n);
    if (more) {
      std::fill_n(v_.begin(), size, 0.0);
      std::fill_n(a_.begin(), size, 0.0);
      std::fill_n(jumps, n * size, 0.0);
    }
    int64_t terms = 16;
    for (const TraceBlock& block : stage.blocks) terms += block.width + 1;
    const double g = gamma(terms);
    std::fill_n(errors_.begin(), size, 0.0);
    std::fill_n(reach_.begin(), size, 0.0);
    error_ = static_cast<double>(stage.rows) * kRowUnderflow + g * stage.bias_norm;
    noise_ = 0;
    for (const TraceBlock& block : stage.blocks) {
      double given = 0, own = size_;  // errors that come in, and sizes of what is rounded
      if (block.source < 0) {
        from_input(size, more);
      } else {
        const Values& in = at(values_, block.source);
        const int64_t width = at(network_.stages, block.source).padded;
        from_.assign({in.start.data(), in.slope.data()});
        to_.assign({v_.data(), a_.data()});
        for (int64_t i = 0; i < count(in.events); ++i) {
          from_.push_back(in.jumps.data() + i * width);
          to_.push_back(jumps + (at(events_, at(in.events, i)).place - 1) * size);
        }
        products_.multiply(block, size, from_.data(), to_.data(), count(from_), reach_.data(), more);
        given = in.error;
        own = in.size;
        noise_ += block.frobenius / std::sqrt(static_cast<double>(block.width)) * (in.noise + kUnit * in.size);
      }
      error_ += block.norm * given + g * block.frobenius * own;
      const V each = set((given + g * own) * kInflate);
      for (int64_t i = 0; i < size; i += kLanes) {
        const V norm = load(block.row_norms.data() + i);
        const V tiny = choose(less(V{}, norm), set(kRowUnderflow), V{});
        store(errors_.data() + i, multiply_add(norm, each, load(errors_.data() + i) + tiny));
      }
    }
    error_ *= kInflate;
    // reach: of the row's slopes, a sum of all jumps; sizes: of all that is added up in the row
    for (int64_t i = 0; i < size; i += kLanes) {
      const V bias = load(stage.bias.data() + i), reach = load(reach_.data() + i) * set(kInflate);
      store(v_.data() + i, load(v_.data() + i) + bias);
      store(reach_.data() + i, reach);
      store(sizes_.data() + i, (reach + abs(bias)) * set(kInflate));
      store(errors_.data() + i, (load(errors_.data() + i) + abs(bias) * set(g)) * set(kInflate));
    }
    noise_ += kUnit * norm_of(sizes_.data(), size);
  }

  void from_input(int64_t size, bool more) {
    const V begin = set(window_.t()), width = set(window_.width()), radius = set(segment_.radius);
    for (int64_t i = 0; i < size; i += kLanes) {
      const V p = load(first_ + projected_ + i), q = load(second_ + projected_ + i);
      const V start = segment_.centred ? p - q * radius : p, whole = segment_.centred ? q * (radius + radius) : q - p;
      const V v = start + whole * begin, a = whole * width;
      store(v_.data() + i, more ? load(v_.data() + i) + v : v);
      store(a_.data() + i, more ? load(a_.data() + i) + a : a);
      store(reach_.data() + i, load(reach_.data() + i) + abs(v) + abs(a));
    }
    projected_ += size;
  }

  // Units without kinks.
  void pass(Values& out) {
    const int64_t size = stage_->padded, n = count(out.events);
    out.start.resize(static_cast<size_t>(size));
    out.slope.resize(static_cast<size_t>(size));
    for (int64_t i = 0; i < size; i += kLanes) {
      const V rate = load(stage_->slope.data() + i), intercept = load(stage_->intercept.data() + i);
      store(out.start.data() + i, load(v_.data() + i) * rate + intercept);
      store(out.slope.data() + i, load(a_.data() + i) * rate);
      store(out_sizes_.data() + i, load(sizes_.data() + i) * set(stage_->lipschitz) + abs(intercept));
      for (int64_t k = 0; k < n; ++k) {
        double* jumps = out.jumps.data() + k * size + i;
        store(jumps, load(jumps) * rate);
      }
    }
    out.size = norm_of(out_sizes_.data(), size);
    out.error = (stage_->lipschitz * error_ + 4 * kUnit * out.size) * kInflate;
    out.noise = stage_->lipschitz * noise_ + kUnit * out.size;
  }

  const TraceNetwork& network_;
  std::vector<Values> values_;

  // The segment: its points' products with the input weights, and their size, as for SegmentTracer::trace.
  Segment segment_{};
  const double *first_ = nullptr, *second_ = nullptr;
  double size_ = 0;
  int64_t projected_ = 0;  // how much of the products has been used

  // The stage's rows.
  const TraceStage* stage_ = nullptr;
  Doubles v_, a_;                       // [padded] at the start
  Doubles reach_;                       // [padded] >= |slope| anywhere on the window, and |v|
  Doubles sizes_, errors_, out_sizes_;  // [padded]: of the rows, their errors; of the units
  double error_ = 0;                    // >= 2-norm of the errors
  double noise_ = 0;                    // about what they are: as if roundings were independent

 private:
  Products products_;
  std::vector<const double*> from_;
  std::vector<double*> to_;
};

}  // namespace
}  // namespace pylinregion
