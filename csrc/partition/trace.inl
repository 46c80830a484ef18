// csrc/partition/trace.inl -- tracing a segment through the network, compiled once per instruction set. The includer
// defines PLR_MAKE_TRACER (the function's name). Letters and bounds are those of docs/exactness.md.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "../linear.h"
#include "lanes.h"
#include "trace.h"

namespace pylinregion {
namespace {

constexpr double kUnit = 1.1102230246251565e-16;  // 2^-53, the rounding of float64
constexpr double kInflate = 1 + 1e-9;             // covers the rounding of bounds, sums of non-negative numbers
constexpr double kTiny = 0x1p-960;                // more than all that can underflow in a row
constexpr double kFar = 1e-6;                     // breakpoints not known to be nearer are placed by integers
constexpr double kTinyNorm = 1e-150;              // more than what a 2-norm loses by underflow

#if defined(__AVX512F__)
constexpr int kTileRows = 6, kTileWide = 4;
#elif defined(__AVX2__)
constexpr int kTileRows = 3, kTileWide = 2;
#else
constexpr int kTileRows = 2, kTileWide = 1;
#endif

inline V spread(double x) { return V{x, x, x, x, x, x, x, x}; }

// Lane i of `yes` where bit i is set, else of `no`.
#if defined(__AVX512F__)
inline V select(uint32_t bits, V yes, V no) {
  return V(_mm512_mask_blend_pd(static_cast<__mmask8>(bits), __m512d(no), __m512d(yes)));
}
#else
inline V select(uint32_t bits, V yes, V no) {
  using Bits = int64_t __attribute__((vector_size(64)));
  const Bits each{1, 2, 4, 8, 16, 32, 64, 128};
  return ((Bits{} + static_cast<int64_t>(bits)) & each) != 0 ? yes : no;
}
#endif

// The numbers of the columns [0, width) in which any of some rows is not 0; `to` has room for whole vectors.
template <int kRows> int64_t used_columns(const double* const* x, int64_t width, int32_t* to) {
  int32_t* const begin = to;
  int64_t c = 0;
#if defined(__AVX512F__)
  __m512i number = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  for (; c + 2 * kLanes <= width; c += 2 * kLanes) {
    uint32_t some = 0;
    for (int r = 0; r < kRows; ++r)
      for (int half = 0; half < 2; ++half) {
        const __m512d v = _mm512_loadu_pd(x[r] + c + half * kLanes);
        some |= static_cast<uint32_t>(_mm512_cmp_pd_mask(v, _mm512_setzero_pd(), _CMP_NEQ_UQ)) << (half * kLanes);
      }
    _mm512_storeu_si512(to, _mm512_maskz_compress_epi32(static_cast<__mmask16>(some), number));
    to += __builtin_popcount(some);
    number = _mm512_add_epi32(number, _mm512_set1_epi32(2 * kLanes));
  }
#endif
  for (; c < width; ++c) {
    bool some = false;
    for (int r = 0; r < kRows; ++r) some |= x[r][c] != 0;
    *to = static_cast<int32_t>(c);
    to += some;
  }
  return to - begin;
}

// kRows rows of x times kWide vectors of a panel, for some columns; sums: what comes out is added there, absolutely.
template <int kRows, int kWide> inline void tile(const double* const* x, const int32_t* columns, int64_t n,
                                                 const double* panel, int64_t stride, double* const* out, double* sums,
                                                 int64_t at, bool more) {
  V sum[kRows][kWide];
  for (int r = 0; r < kRows; ++r)
    for (int w = 0; w < kWide; ++w) sum[r][w] = more ? load(out[r] + at + w * kLanes) : V{};
  for (int64_t i = 0; i < n; ++i) {
    const int64_t c = columns[i];
    V weights[kWide];
    for (int w = 0; w < kWide; ++w) weights[w] = load(panel + c * stride + w * kLanes);
    for (int r = 0; r < kRows; ++r) {
      const V value = spread(x[r][c]);
      for (int w = 0; w < kWide; ++w) sum[r][w] = multiply_add(value, weights[w], sum[r][w]);
    }
  }
  for (int r = 0; r < kRows; ++r)
    for (int w = 0; w < kWide; ++w) store(out[r] + at + w * kLanes, sum[r][w]);
  if (!sums) return;
  for (int w = 0; w < kWide; ++w) {
    V total = load(sums + at + w * kLanes);
    for (int r = 0; r < kRows; ++r) total += abs(sum[r][w]);
    store(sums + at + w * kLanes, total);
  }
}

template <int kRows> void tiles(const double* const* x, const int32_t* columns, int64_t n, const double* panel,
                                int64_t groups, double* const* out, double* sums, int64_t at, bool more) {
  const int64_t stride = groups * kLanes;
  int64_t g = 0;
  for (; g + kTileWide <= groups; g += kTileWide)
    tile<kRows, kTileWide>(x, columns, n, panel + g * kLanes, stride, out, sums, at + g * kLanes, more);
  if constexpr (kTileWide > 3)
    for (; g + 3 <= groups; g += 3)
      tile<kRows, 3>(x, columns, n, panel + g * kLanes, stride, out, sums, at + g * kLanes, more);
  if constexpr (kTileWide > 2)
    for (; g + 2 <= groups; g += 2)
      tile<kRows, 2>(x, columns, n, panel + g * kLanes, stride, out, sums, at + g * kLanes, more);
  for (; g < groups; ++g) tile<kRows, 1>(x, columns, n, panel + g * kLanes, stride, out, sums, at + g * kLanes, more);
}

// Memory that only grows and is not cleared.
class Buffer {
 public:
  double* need(int64_t size) {
    if (!memory_ || size > size_) {
      size_ = size + size / 2;
      memory_.reset(LineAllocator<double>().allocate(static_cast<size_t>(size_)));
    }
    return memory_.get();
  }
  double* data() const { return memory_.get(); }

 private:
  struct Free {
    void operator()(double* p) const { LineAllocator<double>().deallocate(p, 0); }
  };
  std::unique_ptr<double, Free> memory_;
  int64_t size_ = 0;
};

// A new last element, to be filled in place.
template <class T> T& next(std::vector<T>& values) {
  values.emplace_back();
  return values.back();
}

struct Jump {
  int32_t row;
  double jump;
};

// Where some of a stage's units change their slopes: all jumps, or a few.
struct Hinge {
  int32_t event;
  int64_t dense;       // a row of Values::dense, or -1
  int64_t begin, end;  // of Values::jumps
};

// The units of a stage along the segment.
struct Values {
  Doubles start, slope;       // [padded]
  std::vector<Hinge> hinges;  // in the order of t
  std::vector<Jump> jumps;
  Buffer dense;  // [hinges that have one][padded]
  double error;  // >= 2-norm of the difference to the exact units, anywhere on the segment
  double size;   // >= 2-norm of |start| + |slope| + sum |jumps|
};

constexpr int64_t kStart = -1, kEnd = -2;
constexpr int64_t kBlock = 4;  // events looked at together

// A part of the segment, in units of 2^-40; times t within it run from 0 to 1 again.
constexpr int64_t kWhole = int64_t{1} << 40;
constexpr int64_t kMany = 256;  // breakpoints of a window

struct Window {
  int64_t begin, end;
  double t() const { return std::ldexp(static_cast<double>(begin), -40); }
  double width() const { return std::ldexp(static_cast<double>(end - begin), -40); }
};

struct Event {
  double t, d;     // |t - exact| <= d
  int64_t line;    // the first line found to change here; kStart, kEnd
  int32_t number;  // in the order of discovery
};

struct Crossing {
  int64_t interval, slot;
  int32_t row, line;
  bool up, tied;                  // tied: with the crossing before it
  int32_t point;                  // of Tracer::crossing_points_, or -1: not known exactly yet
  double t, d, z, slope, unsure;  // z: less the kink, at the interval's start; unsure: d of ends with exact signs
};

// A line that is exactly 0 at a breakpoint of the stages before it.
struct Zero {
  int64_t event, slot;
  int32_t row;
  double before, after;  // slopes
};

struct Change {
  int32_t line, next;
};

struct Step {
  double dt, d;      // from the event before; of the event
  double* jumps;     // of the rows
  double largest_d;  // of the block that begins here
};

struct Look {  // at eight rows at an event
  V before, after, slope;
  int64_t event;
};

struct Key {  // of a crossing
  double t;
  int32_t interval, line, place;
};

class Tracer final : public SegmentTracer {
 public:
  Tracer(const TraceNetwork& network, const TraceOptions& options, const std::atomic<bool>& stop)
      : network_(network),
        options_(options),
        stop_(stop),
        exact_(network.digits),
        values_(network.stages.size()),
        on_(static_cast<size_t>(network.lines)) {
    int64_t widest = 0;
    for (const TraceStage& stage : network.stages) widest = std::max(widest, stage.padded);
    for (Doubles* each : {&v_, &a_, &next_v_, &reach_, &sizes_, &errors_, &bound_, &gaps_, &out_sizes_})
      each->resize(static_cast<size_t>(widest));
  }

  void project(const double* const* points, int64_t n, Projected* out) override {
    exact_.forget();  // the addresses may hold other points than before
    int64_t size = 0;
    for (const TraceStage& stage : network_.stages)
      for (const TraceBlock& block : stage.blocks)
        if (block.source < 0) size += stage.padded;
    for (int64_t i = 0; i < n; ++i) {
      out[i].point = points[i];
      out[i].norm = norm_of(points[i], network_.dimensions);
      out[i].product.resize(static_cast<size_t>(size));
    }
    int64_t at = 0;
    std::vector<double*> to(static_cast<size_t>(n));
    for (const TraceStage& stage : network_.stages)
      for (const TraceBlock& block : stage.blocks) {
        if (block.source >= 0) continue;
        for (int64_t i = 0; i < n; ++i) to[static_cast<size_t>(i)] = out[i].product.data() + at;
        multiply(block, stage.padded, points, to.data(), n, nullptr, false);
        at += stage.padded;
      }
  }

  void trace(const TraceInput& input, Traced& out) override {
    input_ = &input;
    exact_.set(input.segment);
    windows_.assign({{0, kWhole}});
    written_ = 0;
    while (!windows_.empty()) {
      window_ = windows_.back();
      windows_.pop_back();
      if (run()) write(out);
    }
    out.breakpoints.add(written_);
  }

 private:
  // The stages on a window. False if it was cut instead, because it has many breakpoints.
  bool run() {
    events_.assign({{0, 0, kStart, 0}, {1, 0, kEnd, 1}});
    position_.assign({0, 1});
    first_change_.assign(2, -1);
    changes_.clear();
    points_.clear();
    projected_ = 0;
    const int64_t last = options_.maps ? static_cast<int64_t>(network_.stages.size()) - 1 : network_.last_with_lines;
    for (int64_t l = 0; l <= last; ++l) {
      if (stop_.load(std::memory_order_relaxed)) throw Interrupted();
      form(l);
      if (network_.stages[static_cast<size_t>(l)].slots)
        cut(l);
      else
        pass(l);
      for (int64_t j = 0; j <= l; ++j)
        if (network_.stages[static_cast<size_t>(j)].last_use == l)
          free_.push_back(std::move(values_[static_cast<size_t>(j)].dense));
      if (l < network_.last_with_lines && split(l)) return false;
    }
    return true;
  }

  // Cuts the window where that leaves windows with about kMany breakpoints. Bounds of errors grow with the number of
  // breakpoints that a window has, and so does the memory.
  bool split(int64_t l) {
    const int64_t n = static_cast<int64_t>(events_.size()) - 2, width = window_.end - window_.begin;
    if (n <= kMany || options_.one_window) return false;
    const int64_t expected = n * (network_.last_with_lines + 1) / (l + 1), parts = (expected + kMany - 1) / kMany;
    cuts_.assign({window_.begin});
    for (int64_t i = 1; i < parts; ++i) {
      const int64_t k = n * i / parts;  // between events k and k + 1, or where that is in whole units
      const double middle = (events_[static_cast<size_t>(k)].t + events_[static_cast<size_t>(k + 1)].t) / 2;
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

  // --- products ---

  // out = x times the block's weights (more: added to out), for n rows. sums, if any: what comes out, added absolutely.
  void multiply(const TraceBlock& block, int64_t padded_rows, const double* const* x, double* const* out, int64_t n,
                double* sums, bool more) {
    groups_.clear();
    columns_.resize(static_cast<size_t>((n + 1) * block.width + 2 * kLanes));  // there are no more groups than rows
    int64_t used = 0;
    for (int64_t r = 0; r < n;) {
      const int rows = n - r >= kTileRows ? kTileRows : n - r < 3 ? static_cast<int>(n - r) : 3;
      const int64_t begin = used;
      int32_t* to = columns_.data() + begin;
      switch (rows) {
        case 1: used += used_columns<1>(x + r, block.width, to); break;
        case 2: used += used_columns<2>(x + r, block.width, to); break;
        case 3: used += used_columns<3>(x + r, block.width, to); break;
        default: used += used_columns<kTileRows>(x + r, block.width, to);
      }
      groups_.push_back({r, rows, begin, used});
      r += rows;
    }
    const PanelPlan plan(padded_rows, kLanes);
    for (int64_t p = 0; p < plan.panels; ++p) {
      const int64_t first = plan.first_group(p) * kLanes, width = plan.width(p);
      const double* panel = block.packed.data() + first * block.width;
      for (const Group& group : groups_) {
        const int32_t* columns = columns_.data() + group.begin;
        const int64_t count = group.end - group.begin;
        const double* const* from = x + group.row;
        double* const* to = out + group.row;
        switch (group.rows) {
          case 1: tiles<1>(from, columns, count, panel, width, to, sums, first, more); break;
          case 2: tiles<2>(from, columns, count, panel, width, to, sums, first, more); break;
          case 3: tiles<3>(from, columns, count, panel, width, to, sums, first, more); break;
          default: tiles<kTileRows>(from, columns, count, panel, width, to, sums, first, more);
        }
      }
    }
  }

  // The same for one row that is 0 but for a few numbers.
  static void combine(const TraceBlock& block, int64_t padded_rows, const Jump* jumps, int64_t n, double* out,
                      double* sums, bool more) {
    const PanelPlan plan(padded_rows, kLanes);
    for (int64_t p = 0; p < plan.panels; ++p) {
      const int64_t first = plan.first_group(p) * kLanes, stride = plan.width(p) * kLanes;
      const double* panel = block.packed.data() + first * block.width;
      for (int64_t i = 0; i < n; ++i) {
        const V jump = spread(jumps[i].jump);
        const double* column = panel + jumps[i].row * stride;
        double* to = out + first;
        if (more || i)
          for (int64_t w = 0; w < stride; w += kLanes)
            store(to + w, multiply_add(jump, load(column + w), load(to + w)));
        else
          for (int64_t w = 0; w < stride; w += kLanes) store(to + w, jump * load(column + w));
      }
    }
    for (int64_t w = 0; w < padded_rows; w += kLanes) store(sums + w, load(sums + w) + abs(load(out + w)));
  }

  static double norm_of(const double* x, int64_t n) {  // >= the 2-norm
    V squares{};
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) squares = multiply_add(load(x + i), load(x + i), squares);
    double largest = 0, sum = 0;
    for (int64_t k = 0; k < kLanes; ++k) sum += squares[k];
    for (; i < n; ++i) sum += x[i] * x[i];
    if (sum > 1e-200 && sum < 1e200) return std::sqrt(sum) * kInflate;
    sum = 0;
    for (i = 0; i < n; ++i) largest = std::max(largest, std::fabs(x[i]));
    if (largest == 0) return 0;
    for (i = 0; i < n; ++i) sum += (x[i] / largest) * (x[i] / largest);
    return largest * std::sqrt(sum) * kInflate;
  }
  // >= the 2-norm of n (whole vectors) numbers.
  static double norm_of_padded(const double* x, int64_t n) {
    V sum{};
    for (int64_t i = 0; i < n; i += kLanes) sum = multiply_add(load(x + i), load(x + i), sum);
    double total = 0;
    for (int64_t i = 0; i < kLanes; ++i) total += sum[i];
    return std::sqrt(total) * kInflate + kTinyNorm;
  }
  static double gamma(int64_t n) { return static_cast<double>(n) * kUnit * kInflate; }

  // --- rows ---

  // The rows of a stage: start, slope and jumps; bounds of their errors.
  void form(int64_t l) {
    const TraceStage& stage = network_.stages[static_cast<size_t>(l)];
    const int64_t size = stage.padded, n = static_cast<int64_t>(events_.size()) - 2;
    slot_.assign(static_cast<size_t>(n + 2), -1);
    int64_t terms = 0;
    for (const TraceBlock& block : stage.blocks) {
      terms += block.width + 1;
      if (block.source >= 0)
        for (const Hinge& hinge : values_[static_cast<size_t>(block.source)].hinges)
          slot_[static_cast<size_t>(position_[static_cast<size_t>(hinge.event)])] = 0;
    }
    slots_ = 0;
    for (int64_t k = 1; k <= n; ++k)
      if (slot_[static_cast<size_t>(k)] == 0) slot_[static_cast<size_t>(k)] = slots_++;
    Values& out = values_[static_cast<size_t>(l)];
    if (!free_.empty()) {
      out.dense = std::move(free_.back());
      free_.pop_back();
    }
    dense_ = out.dense.need(slots_ * size);
    const bool more = stage.blocks.size() != 1;
    if (more) {
      std::fill_n(v_.begin(), size, 0.0);
      std::fill_n(a_.begin(), size, 0.0);
      std::fill_n(dense_, slots_ * size, 0.0);
    }
    const double g = gamma(terms + 8);
    std::fill_n(errors_.begin(), size, 0.0);
    std::fill_n(reach_.begin(), size, 0.0);
    error_ = static_cast<double>(stage.rows) * kTiny + g * stage.bias_norm;
    for (const TraceBlock& block : stage.blocks) {
      double given, own;  // errors that come in, and sizes of what is rounded
      if (block.source < 0) {
        from_input(size, more);
        given = 0;
        own = input_->first->norm + (input_->segment.centred ? input_->segment.radius : 1.0) * input_->second->norm;
      } else {
        const Values& in = values_[static_cast<size_t>(block.source)];
        from_units(block, in, size, more);
        given = in.error;
        own = in.size;
      }
      error_ += block.norm * given + g * block.frobenius * own;
      const V each = spread((given + g * own) * kInflate);
      for (int64_t i = 0; i < size; i += kLanes) {
        const V norm = load(block.row_norms.data() + i);
        const V tiny = norm > 0.0 ? spread(kTiny) : V{};
        store(errors_.data() + i, multiply_add(norm, each, load(errors_.data() + i) + tiny));
      }
    }
    error_ *= kInflate;
    // reach: of the row's slopes, a sum of all jumps; sizes: of all that is added up in the row
    for (int64_t i = 0; i < size; i += kLanes) {
      const V bias = load(stage.bias.data() + i), reach = load(reach_.data() + i) * spread(kInflate);
      store(v_.data() + i, load(v_.data() + i) + bias);
      store(reach_.data() + i, reach);
      store(sizes_.data() + i, (reach + abs(bias)) * spread(kInflate));
      store(errors_.data() + i, (load(errors_.data() + i) + abs(bias) * spread(g)) * spread(kInflate));
    }
  }

  void from_input(int64_t size, bool more) {
    const double* first = input_->first->product.data() + projected_;
    const double* second = input_->second->product.data() + projected_;
    projected_ += size;
    const Segment& segment = input_->segment;
    const V begin = spread(window_.t()), width = spread(window_.width());
    for (int64_t i = 0; i < size; i += kLanes) {
      const V p = load(first + i), q = load(second + i);
      V v, a;
      if (segment.centred) {
        const V reach = q * spread(segment.radius), whole = reach + reach;
        v = (p - reach) + whole * begin;
        a = whole * width;
      } else {
        v = p + (q - p) * begin;
        a = (q - p) * width;
      }
      store(v_.data() + i, more ? load(v_.data() + i) + v : v);
      store(a_.data() + i, more ? load(a_.data() + i) + a : a);
      store(reach_.data() + i, load(reach_.data() + i) + abs(v) + abs(a));
    }
  }

  void from_units(const TraceBlock& block, const Values& in, int64_t size, bool more) {
    from_.assign({in.start.data(), in.slope.data()});
    to_.assign({v_.data(), a_.data()});
    const int64_t width = network_.stages[static_cast<size_t>(block.source)].padded;
    for (const Hinge& hinge : in.hinges) {
      double* to = dense_ + slot_[static_cast<size_t>(position_[static_cast<size_t>(hinge.event)])] * size;
      if (hinge.dense >= 0) {
        from_.push_back(in.dense.data() + hinge.dense * width);
        to_.push_back(to);
      } else {
        combine(block, size, in.jumps.data() + hinge.begin, hinge.end - hinge.begin, to, reach_.data(), more);
      }
    }
    multiply(block, size, from_.data(), to_.data(), static_cast<int64_t>(from_.size()), reach_.data(), more);
  }

  // --- stages without kinks ---

  void pass(int64_t l) {
    const TraceStage& stage = network_.stages[static_cast<size_t>(l)];
    const int64_t size = stage.padded;
    Values& out = values_[static_cast<size_t>(l)];
    out.start.resize(static_cast<size_t>(size));
    out.slope.resize(static_cast<size_t>(size));
    const double *slope = stage.slope.data(), *intercept = stage.intercept.data();
    for (int64_t i = 0; i < size; i += kLanes) {
      const V d = load(slope + i), v = load(v_.data() + i), a = load(a_.data() + i);
      store(out.start.data() + i, stage.plain ? v : v * d + load(intercept + i));
      store(out.slope.data() + i, stage.plain ? a : a * d);
    }
    if (!stage.plain)
      for (int64_t k = 0; k < slots_; ++k)
        for (int64_t i = 0; i < size; i += kLanes) {
          double* x = dense_ + k * size + i;
          store(x, load(x) * load(slope + i));
        }
    out.hinges.clear();
    out.jumps.clear();
    for (size_t k = 1; k + 1 < events_.size(); ++k) {
      if (slot_[k] < 0) continue;
      Hinge& hinge = next(out.hinges);
      hinge.event = events_[k].number, hinge.dense = slot_[k];
    }
    if (stage.plain) {
      out.error = error_;
      out.size = norm_of_padded(sizes_.data(), size);
      return;
    }
    for (int64_t i = 0; i < size; i += kLanes)
      store(out_sizes_.data() + i, load(sizes_.data() + i) * spread(stage.lipschitz) + abs(load(intercept + i)));
    out.size = norm_of_padded(out_sizes_.data(), size);
    out.error = (stage.lipschitz * error_ + 4 * kUnit * out.size) * kInflate;
  }

  // --- stages with kinks ---

  void cut(int64_t l) {
    const TraceStage& stage = network_.stages[static_cast<size_t>(l)];
    stage_ = &stage;
    const int64_t size = stage.padded, n = static_cast<int64_t>(events_.size()) - 2;
    rounding_ = gamma(2 * n + 16);
    for (int64_t i = 0; i < size; i += kLanes) {
      store(sizes_.data() + i, load(sizes_.data() + i) + load(stage.kink_sizes.data() + i));
      const V bound = (load(errors_.data() + i) + load(sizes_.data() + i) * spread(rounding_)) * spread(kInflate);
      store(bound_.data() + i, options_.force_exact ? spread(std::numeric_limits<double>::infinity()) : bound);
      const V out_size = load(sizes_.data() + i) * spread(stage.lipschitz) + spread(stage.largest_intercept);
      store(out_sizes_.data() + i, out_size);
      store(gaps_.data() + i, out_size * spread(4 * kUnit));
    }
    Values& out = values_[static_cast<size_t>(l)];
    out.start.assign(v_.begin(), v_.begin() + size);
    out.slope.assign(a_.begin(), a_.begin() + size);
    out.hinges.clear();
    out.jumps.clear();
    crossings_.clear();
    crossing_points_.clear();
    zeros_.clear();
    placed_ = -1;
    if (stage.slots == 1)
      sweep<true>();
    else
      sweep<false>();
    decisions.filter += (n + 2) * stage.rows * stage.slots;

    start(out);
    placed_ = -1;

    // Old breakpoints and new ones in order.
    sort_crossings();
    tie_at_old_breakpoints();
    merged_.clear();
    size_t c = 0, tie = 0;
    for (int64_t k = 0; k <= n; ++k) {
      merged_.push_back(events_[static_cast<size_t>(k)]);
      if (k >= 1) {
        Hinge& hinge = next(out.hinges);
        hinge.event = events_[static_cast<size_t>(k)].number;
        hinge.dense = slot_[static_cast<size_t>(k)];
        hinge.begin = static_cast<int64_t>(out.jumps.size());
        for (; tie < ties_.size() && ties_[tie].first == k; ++tie) out.jumps.push_back(ties_[tie].second);
        hinge.end = static_cast<int64_t>(out.jumps.size());
        if (hinge.dense < 0 && hinge.begin == hinge.end) out.hinges.pop_back();
      }
      const size_t begin = c;
      while (c < crossings_.size() && crossings_[c].interval == k) ++c;
      if (begin < c) insert(begin, c, out);
    }
    merged_.push_back(events_.back());
    events_.swap(merged_);
    position_.resize(events_.size());
    for (size_t k = 0; k < events_.size(); ++k)
      position_[static_cast<size_t>(events_[k].number)] = static_cast<int32_t>(k);

    for (int64_t r = stage.rows; r < size; ++r) gaps_[static_cast<size_t>(r)] = out_sizes_[static_cast<size_t>(r)] = 0;
    out.size = norm_of_padded(out_sizes_.data(), size);
    out.error = (stage.lipschitz * error_ + norm_of_padded(gaps_.data(), size)) * kInflate;
  }

  // The first region: pieces, and the units at the start.
  void start(Values& out) {
    const TraceStage& stage = *stage_;
    const int64_t size = stage.padded;
    for (int64_t i = 0; i < size; i += kLanes) {
      V slope = load(stage.slope.data() + i), intercept = load(stage.intercept.data() + i);
      for (int64_t s = 0; s < stage.slots; ++s) {
        const size_t at = byte(0, i / kLanes, s);
        const uint32_t known = positive_[at] | negative_[at];
        const uint32_t on = (positive_[at] & known) | (positive_[byte(1, i / kLanes, s)] & ~known);
        slope = select(on, load(stage.slope.data() + (s + 1) * size + i), slope);
        intercept = select(on, load(stage.intercept.data() + (s + 1) * size + i), intercept);
        const int32_t* line = stage.line.data() + s * size + i;
        for (int64_t bit = 0; bit < kLanes; ++bit)
          if (line[bit] >= 0) on_[static_cast<size_t>(line[bit])] = on >> bit & 1;
      }
      store(out.start.data() + i, load(out.start.data() + i) * slope + intercept);
      store(out.slope.data() + i, load(out.slope.data() + i) * slope);
    }
  }

  // The signs of all lines at all breakpoints, and where they differ. The jumps of rows become those of units.
  // Eight rows at a time run along the segment: their values and slopes stay in registers, their jumps in the cache.
  template <bool kOneSlot> void sweep() {
    const TraceStage& stage = *stage_;
    const int64_t size = stage.padded, groups = size / kLanes, n = static_cast<int64_t>(events_.size()) - 2;
    const int64_t slots = kOneSlot ? 1 : stage.slots;
    stride_ = 1 + (n + 1 + kBlock - 1) / kBlock * kBlock;
    const size_t bytes = static_cast<size_t>(stride_ * groups * slots);
    for (std::vector<uint8_t>* each : {&positive_, &negative_, &sure_})
      if (each->size() < bytes) each->resize(bytes);
    std::memset(sure_.data(), 0xff, bytes);  // but where it is looked at
    nothing_.assign(static_cast<size_t>(size), 0.0);
    steps_.resize(static_cast<size_t>(stride_));
    for (int64_t k = 0; k < stride_; ++k) {
      Step& step = steps_[static_cast<size_t>(k)];
      step = {0, 0, nothing_.data(), 0};
      if (k > n + 1) continue;  // to fill the last block
      const Event& event = events_[static_cast<size_t>(k)];
      const int64_t slot = slot_[static_cast<size_t>(k)];
      if (k) step.dt = event.t - events_[static_cast<size_t>(k - 1)].t;
      step.d = event.d;
      if (slot >= 0) step.jumps = dense_ + slot * size;
    }
    for (int64_t k = 1; k < stride_; k += kBlock)
      for (int64_t j = k; j < k + kBlock; ++j)
        steps_[static_cast<size_t>(k)].largest_d =
            std::max(steps_[static_cast<size_t>(k)].largest_d, steps_[static_cast<size_t>(j)].d);
    if (kOneSlot)  // with one kink a row, values are less the kink from here on
      for (int64_t i = 0; i < size; i += kLanes)
        store(v_.data() + i, load(v_.data() + i) - load(stage.kink.data() + i));
    above_.assign(static_cast<size_t>(groups), 0);
    all_sure_.assign(static_cast<size_t>(groups), 1);
    for (int64_t g = 0; g < groups; ++g) look_closely<kOneSlot>(g, 0, 1);
    for (int64_t k = 1; k < n + 2; k += kBlock)
      for (int64_t g = 0; g < groups; ++g)
        if (!kOneSlot || !nothing_happens(g, k)) look_closely<kOneSlot>(g, k, std::min(n + 2, k + kBlock));
  }

  // Goes through a block of events if no sign of eight rows, each with one kink, changes or is uncertain there.
  bool nothing_happens(int64_t g, int64_t k) {
    if (!all_sure_[static_cast<size_t>(g)]) return false;
    const int64_t i = g * kLanes;
    const Step* const steps = steps_.data() + k;
    const uint32_t above_before = above_[static_cast<size_t>(g)];
    const V side = select(above_before, spread(1.0), spread(-1.0));
    V a = load(a_.data() + i), z = load(v_.data() + i), least = spread(std::numeric_limits<double>::infinity());
    for (int64_t j = 0; j < kBlock; ++j) {
      z = multiply_add(a, spread(steps[j].dt), z);
      least = min(least, z * side);
      a += load(steps[j].jumps + i);
    }
    const V certain = multiply_add(load(reach_.data() + i), spread(steps[0].largest_d), load(bound_.data() + i));
    if (above(least, certain) != 0xff) return false;
    const V rate =
        select(above_before, load(stage_->slope.data() + stage_->padded + i), load(stage_->slope.data() + i));
    for (int64_t j = 0; j < kBlock; ++j) {
      double* jumps = steps[j].jumps + i;
      store(jumps, rate * load(jumps));
    }
    store(a_.data() + i, a);
    store(v_.data() + i, z);
    std::memset(positive_.data() + byte(k, g, 0), static_cast<int>(above_before), kBlock);
    std::memset(negative_.data() + byte(k, g, 0), static_cast<int>(~above_before & 0xff), kBlock);
    return true;
  }

  // Goes through events [k, end) one by one.
  template <bool kOneSlot> void look_closely(int64_t g, int64_t begin, int64_t end) {
    const TraceStage& stage = *stage_;
    const int64_t i = g * kLanes, slots = stage.slots;
    const V reach = load(reach_.data() + i), bound = load(bound_.data() + i);
    V a = load(a_.data() + i), v = load(v_.data() + i);
    looks_.clear();
    for (int64_t k = begin; k < end; ++k) {
      const Step& step = steps_[static_cast<size_t>(k)];
      const V before = v, certain = multiply_add(reach, spread(step.d), bound);
      v = multiply_add(a, spread(step.dt), v);
      bool sure = true, other = false;
      for (int64_t s = 0; s < slots; ++s) {
        V z = v;
        if (!kOneSlot) z -= load(stage.kink.data() + s * stage.padded + i);
        const uint32_t is_above = above(z, certain), is_below = above(-z, certain);
        const size_t at = byte(k, g, s);
        positive_[at] = static_cast<uint8_t>(is_above);
        negative_[at] = static_cast<uint8_t>(is_below);
        sure &= (is_above | is_below) == 0xff;
        if (k) other |= (positive_[at - 1] & is_below) | (negative_[at - 1] & is_above);
        if (kOneSlot) above_[static_cast<size_t>(g)] = static_cast<uint8_t>(is_above);
      }
      uint8_t& was_sure = all_sure_[static_cast<size_t>(g)];
      if (other || !sure || !was_sure) {
        Look& look = next(looks_);
        look.before = before, look.after = v, look.slope = a, look.event = k;
      }
      was_sure = sure;
      a += load(step.jumps + i);
    }
    store(a_.data() + i, a);
    store(v_.data() + i, v);
    for (const Look& each : looks_) look_at(each, g);
    for (int64_t k = begin; k < end; ++k) {
      V slope = load(stage.slope.data() + i);
      for (int64_t s = 0; s < slots; ++s)
        slope = select(positive_[byte(k, g, s)], load(stage.slope.data() + (s + 1) * stage.padded + i), slope);
      double* jumps = steps_[static_cast<size_t>(k)].jumps + i;
      store(jumps, slope * load(jumps));
    }
  }

  size_t byte(int64_t event, int64_t group, int64_t slot) const {
    return static_cast<size_t>((group * stage_->slots + slot) * stride_ + event);
  }

  // What is to be subtracted from a Look's values; with one kink a row, that was done at the start.
  double kink_taken_off(int64_t row, int64_t slot) const {
    return stage_->slots == 1 ? 0.0 : stage_->kink[static_cast<size_t>(slot * stage_->padded + row)];
  }

  // Eight rows at a breakpoint where one of them is uncertain, or has another sign than at the one before.
  void look_at(const Look& look, int64_t group) {
    const int64_t k = look.event, slots = stage_->slots;
    const Step& step = steps_[static_cast<size_t>(k)];
    for (int64_t s = 0; s < slots; ++s) {
      const size_t here = byte(k, group, s);
      const uint32_t certain = positive_[here] | negative_[here];
      sure_[here] = static_cast<uint8_t>(certain);
      for (uint32_t rest = ~certain & 0xff; rest; rest &= rest - 1) {
        const int bit = __builtin_ctz(rest);
        const int64_t row = group * kLanes + bit;
        const size_t r = static_cast<size_t>(row);
        const double z = look.after[bit] - kink_taken_off(row, s);
        const int sign =
            doubtful(k, row, s, z, reach_[r] * step.d + bound_[r], look.slope[bit], look.slope[bit] + step.jumps[row]);
        if (sign > 0) positive_[here] = static_cast<uint8_t>(positive_[here] | 1u << bit);
        if (sign < 0) negative_[here] = static_cast<uint8_t>(negative_[here] | 1u << bit);
      }
      if (k == 0) continue;
      const size_t before = byte(k - 1, group, s);
      uint32_t rest = (positive_[before] & negative_[here]) | (negative_[before] & positive_[here]);
      for (; rest; rest &= rest - 1) {
        const int bit = __builtin_ctz(rest);
        const int64_t row = group * kLanes + bit;
        const double kink = kink_taken_off(row, s);
        cross(k - 1, row, s, positive_[here] >> bit & 1, look.before[bit] - kink, look.after[bit] - kink,
              look.slope[bit], sure_[before] >> bit & 1, certain >> bit & 1);
      }
    }
  }
  // The slopes of the pieces beside a kink, added up: by how much a unit can be off for each unit that z is.
  double bend(int64_t row, int64_t slot) const {
    const size_t at = static_cast<size_t>(slot * stage_->padded + row), next = at + static_cast<size_t>(stage_->padded);
    return std::fabs(stage_->slope[at]) + std::fabs(stage_->slope[next]);
  }

  // The sign of a line at breakpoint k, in integers.
  int doubtful(int64_t k, int64_t row, int64_t slot, double z, double bound, double before, double after) {
    const int64_t n = static_cast<int64_t>(events_.size()) - 2;
    const int32_t line = stage_->line[static_cast<size_t>(slot * stage_->padded + row)];
    if (line < 0) return -1;
    int sign = 0;
    if (bound != 0 || z != 0) {  // else it is a row of zeros
      if (stop_.load(std::memory_order_relaxed)) throw Interrupted();
      ++decisions.exact;
      --decisions.filter;
      sign = sign_at(exact_row(line, std::min(k, n)), point(k));
      decisions.zeros += sign == 0;
      const bool agrees = sign != 0 && sign == (z > 0) - (z < 0);
      const size_t r = static_cast<size_t>(row);
      gaps_[r] += bend(row, slot) * ((agrees ? 0 : 2 * std::fabs(z)) + 4 * rounding_ * sizes_[r]) * kInflate;
    }
    if (sign == 0 && k >= 1 && k <= n) zeros_.push_back({k, slot, static_cast<int32_t>(row), before, after});
    return sign;
  }

  // A line has opposite signs at the ends of an interval.
  void cross(int64_t interval, int64_t row, int64_t slot, bool up, double z, double z_end, double slope,
             bool sure_before, bool sure_after) {
    const Event &from = events_[static_cast<size_t>(interval)], &to = events_[static_cast<size_t>(interval + 1)];
    Crossing& x = next(crossings_);
    x.interval = interval, x.slot = slot;
    x.row = static_cast<int32_t>(row);
    x.line = stage_->line[static_cast<size_t>(slot * stage_->padded + row)];
    x.up = up, x.tied = false, x.point = -1;
    x.z = z, x.slope = slope;
    double part = z / (z - z_end);
    part = std::isnan(part) ? 0.5 : std::min(1.0, std::max(0.0, part));
    x.t = std::min(to.t, from.t + part * (to.t - from.t));
    x.unsure = std::max(sure_before ? 0.0 : from.d, sure_after ? 0.0 : to.d);
    x.d = distance(x, x.t);
  }
  double residual(const Crossing& x, double t) const {
    return std::fabs(x.z + x.slope * (t - events_[static_cast<size_t>(x.interval)].t));
  }
  // How far t is from the exact crossing, at most.
  double distance(const Crossing& x, double t) const {
    const size_t r = static_cast<size_t>(x.row);
    const Event &from = events_[static_cast<size_t>(x.interval)], &to = events_[static_cast<size_t>(x.interval + 1)];
    const double whole = to.t - from.t + std::max(from.d, to.d);
    const double slope = std::fabs(x.slope) - rounding_ * sizes_[r];
    const double near = x.unsure + (bound_[r] + reach_[r] * x.unsure + residual(x, t)) / slope;
    return (slope > 0 && near < whole ? near : whole) * kInflate + 1e-30;
  }

  // Whether a unit is above a kink in interval k, before it crosses it there.
  bool state(int64_t k, int64_t row, int64_t slot) const { return sign_or_next(k, k + 1, row, slot); }
  // The same after it.
  bool state_at_end(int64_t k, int64_t row, int64_t slot) const { return sign_or_next(k + 1, k, row, slot); }
  bool sign_or_next(int64_t k, int64_t next, int64_t row, int64_t slot) const {
    const size_t at = byte(k, row / kLanes, slot);
    const int bit = static_cast<int>(row % kLanes);
    if ((positive_[at] | negative_[at]) >> bit & 1) return positive_[at] >> bit & 1;
    return positive_[byte(next, row / kLanes, slot)] >> bit & 1;
  }

  void sort_crossings() {
    keys_.clear();
    for (size_t i = 0; i < crossings_.size(); ++i) {
      Key& key = next(keys_);
      key.t = crossings_[i].t, key.interval = static_cast<int32_t>(crossings_[i].interval);
      key.line = crossings_[i].line, key.place = static_cast<int32_t>(i);
    }
    std::sort(keys_.begin(), keys_.end(), [](const Key& x, const Key& y) {
      if (x.t != y.t) return x.t < y.t;  // never against the order of intervals
      return x.interval != y.interval ? x.interval < y.interval : x.line < y.line;
    });
    sorted_.clear();
    for (const Key& key : keys_) sorted_.push_back(crossings_[static_cast<size_t>(key.place)]);
    crossings_.swap(sorted_);
  }

  // Lines that are 0 at a breakpoint of earlier stages may change there.
  void tie_at_old_breakpoints() {
    const TraceStage& stage = *stage_;
    ties_.clear();
    std::sort(zeros_.begin(), zeros_.end(),
              [](const Zero& x, const Zero& y) { return x.event != y.event ? x.event < y.event : x.row < y.row; });
    for (const Zero& zero : zeros_) {
      const int64_t k = zero.event;
      const bool was = state_at_end(k - 1, zero.row, zero.slot), is = state(k, zero.row, zero.slot);
      int64_t piece_before = 0, piece_after = 0;
      for (int64_t s = 0; s < stage.slots; ++s) {
        if (stage.line[static_cast<size_t>(s * stage.padded + zero.row)] < 0) break;
        piece_before += state_at_end(k - 1, zero.row, s);
        piece_after += state(k, zero.row, s);
      }
      const double before = stage.slope[static_cast<size_t>(piece_before * stage.padded + zero.row)],
                   after = stage.slope[static_cast<size_t>(piece_after * stage.padded + zero.row)];
      const double jump = after * zero.after - before * zero.before;
      if (slot_[static_cast<size_t>(k)] >= 0)
        dense_[slot_[static_cast<size_t>(k)] * stage.padded + zero.row] = jump;
      else if (was != is)
        ties_.push_back({k, {zero.row, jump}});
      if (was == is) continue;
      out_sizes_[static_cast<size_t>(zero.row)] += bend(zero.row, zero.slot) * reach_[static_cast<size_t>(zero.row)];
      change(events_[static_cast<size_t>(k)].number,
             stage.line[static_cast<size_t>(zero.slot * stage.padded + zero.row)]);
    }
  }

  void change(int32_t event, int32_t line) {
    int32_t& first = first_change_[static_cast<size_t>(event)];
    Change& made = next(changes_);
    made.line = line, made.next = first;
    first = static_cast<int32_t>(changes_.size()) - 1;
  }

  // New breakpoints in one interval.
  void insert(size_t begin, size_t end, Values& out) {
    const int64_t k = crossings_[begin].interval;
    if (end - begin > 1) put_in_order(begin, end);
    const double last = events_[static_cast<size_t>(k + 1)].t;
    double t = events_[static_cast<size_t>(k)].t;
    for (size_t i = begin; i < end; ++i) {
      Crossing& x = crossings_[i];
      const size_t r = static_cast<size_t>(x.row);
      if (!x.tied) {
        t = std::min(last, std::max(t, x.t));
        double d = distance(x, t);
        if (d * window_.width() > kFar) {
          const double width = window_.width(), exactly = (position_of(point_of(x)) - window_.t()) / width;
          t = std::min(last, std::max(merged_.back().t, exactly));
          d = std::min(d, (std::fabs(t - exactly) + 16 * kUnit / width) * kInflate);
        }
        const int32_t number = static_cast<int32_t>(first_change_.size());
        first_change_.push_back(-1);
        Event& event = next(merged_);
        event.t = t, event.d = d, event.line = x.line, event.number = number;
        if (x.point >= 0) points_[number] = crossing_points_[static_cast<size_t>(x.point)];
        Hinge& hinge = next(out.hinges);
        hinge.event = number, hinge.dense = -1;
        hinge.begin = hinge.end = static_cast<int64_t>(out.jumps.size());
      }
      const size_t low = static_cast<size_t>(x.slot * stage_->padded) + r,
                   high = low + static_cast<size_t>(stage_->padded);
      const double rise = stage_->slope[high] - stage_->slope[low];
      Jump& jump = next(out.jumps);
      jump.row = x.row, jump.jump = x.up ? rise * x.slope : -(rise * x.slope);
      ++out.hinges.back().end;
      change(merged_.back().number, x.line);
      const double b = bend(x.row, x.slot);
      gaps_[r] += b * (2 * residual(x, t) + 4 * rounding_ * sizes_[r]) * kInflate;
      out_sizes_[r] += b * std::fabs(x.slope) * kInflate;
    }
  }

  bool certain(const Crossing& x, const Crossing& y) const {
    return std::fabs(x.t - y.t) > (x.d + y.d) * kInflate + 4 * kUnit && !options_.force_exact;
  }
  const SegmentPoint& point_of(Crossing& x) {
    if (x.point < 0) {
      x.point = static_cast<int32_t>(crossing_points_.size());
      crossing_points_.push_back(zero_of(exact_row(x.line, x.interval)));
    }
    return crossing_points_[static_cast<size_t>(x.point)];
  }
  int exact_order(Crossing& x, Crossing& y) {
    point_of(x), point_of(y);  // the second may move the first
    return order(point_of(x), point_of(y));
  }
  void put_in_order(size_t begin, size_t end) {
    const auto first = crossings_.begin() + static_cast<int64_t>(begin),
               last = crossings_.begin() + static_cast<int64_t>(end);
    decisions.filter += static_cast<int64_t>(end - begin) - 1;
    bool clear = true;
    for (auto x = first; x + 1 != last && clear; ++x) clear = certain(*x, *(x + 1));
    if (clear) return;
    // By exact comparisons where need be; a merge of sorted halves would do fewer, but there are few to do.
    for (auto x = first + 1; x != last; ++x) {
      if (stop_.load(std::memory_order_relaxed)) throw Interrupted();
      for (auto y = x; y != first && !certain(*(y - 1), *y); --y) {
        ++decisions.exact;
        const int sign = exact_order(*(y - 1), *y);
        if (sign <= 0) break;
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

  // The pattern of the stages so far in interval k.
  const uint8_t* pattern(int64_t k) {
    if (placed_ < 0) {
      now_ = on_;
      placed_ = 0;
    }
    const auto toggle = [&](int64_t event) {
      for (int32_t c = first_change_[static_cast<size_t>(events_[static_cast<size_t>(event)].number)]; c >= 0;
           c = changes_[static_cast<size_t>(c)].next)
        now_[static_cast<size_t>(changes_[static_cast<size_t>(c)].line)] ^= 1;
    };
    while (placed_ < k) toggle(++placed_);
    while (placed_ > k) toggle(placed_--);
    return now_.data();
  }
  SegmentRow exact_row(int64_t line, int64_t interval) { return exact_.row(line, pattern(interval)); }
  const SegmentPoint& point(int64_t k) {
    const Event& event = events_[static_cast<size_t>(k)];
    const auto found = points_.find(event.number);
    if (found != points_.end()) return found->second;
    SegmentPoint& made = points_[event.number];
    if (event.line == kStart)
      made = {BigInt(kWhole - window_.begin), BigInt(window_.begin)};
    else if (event.line == kEnd)
      made = {BigInt(kWhole - window_.end), BigInt(window_.end)};
    else
      made = zero_of(exact_row(event.line, k));
    return made;
  }

  // --- results ---

  // Adds the window to the segment.
  void write(Traced& out) {
    const size_t n = events_.size() - 2, changed = out.change_line.size();
    const double begin = window_.t(), width = window_.width();
    const auto inside = [](double t) {
      return std::min(1 - kUnit, std::max(std::numeric_limits<double>::denorm_min(), t));
    };
    bool new_region = true;  // the first, or what begins where the last window ended
    if (window_.begin == 0) {
      out.on = on_;
    } else {
      for (size_t r = 0; r < on_.size(); ++r)
        if (on_[r] != last_on_[r]) out.change_line.add(static_cast<int32_t>(r));
      new_region = out.change_line.size() > changed;
      if (new_region) {
        out.t.add(inside(begin));
        out.change_counts.add(static_cast<int64_t>(out.change_line.size() - changed));
        ++written_;
      }
    }
    double* t = out.t.more(n);
    int64_t* counts = out.change_counts.more(n);
    for (size_t k = 1; k <= n; ++k) {
      const Event& event = events_[k];
      t[k - 1] = inside(begin + event.t * width);
      int64_t count = 0;
      for (int32_t c = first_change_[static_cast<size_t>(event.number)]; c >= 0; ++count) {
        out.change_line.add(changes_[static_cast<size_t>(c)].line);
        c = changes_[static_cast<size_t>(c)].next;
      }
      counts[k - 1] = count;
      if (count > 1) std::sort(out.change_line.end() - count, out.change_line.end());
    }
    written_ += static_cast<int64_t>(n);
    if (!windows_.empty()) {
      last_on_ = on_;
      for (const Change& each : changes_) last_on_[static_cast<size_t>(each.line)] ^= 1;
    }
    if (options_.maps) write_maps(out, new_region);
  }

  void write_maps(Traced& out, bool first) {
    Values& values = values_.back();
    const int64_t n = static_cast<int64_t>(events_.size()) - 2, outputs = network_.outputs,
                  size = network_.stages.back().padded;
    const double begin = window_.t(), scale = 1 / window_.width();
    double *slope = values.slope.data(), *value = values.start.data();  // at the window's start
    double* to = out.maps.more(static_cast<size_t>((n + first) * outputs * 2));
    const auto add = [&] {
      for (int64_t o = 0; o < outputs; ++o) {
        const double rate = slope[o] * scale;
        to[2 * o] = rate;
        to[2 * o + 1] = value[o] - rate * begin;
      }
      to += 2 * outputs;
    };
    if (first) add();
    size_t hinge = 0;
    for (int64_t k = 1; k <= n; ++k) {
      const Event& event = events_[static_cast<size_t>(k)];
      if (hinge < values.hinges.size() && values.hinges[hinge].event == event.number) {
        const double* jumps = values.dense.data() + values.hinges[hinge++].dense * size;
        const V t = spread(event.t);
        for (int64_t i = 0; i < size; i += kLanes) {
          const V jump = load(jumps + i);
          store(slope + i, load(slope + i) + jump);
          store(value + i, load(value + i) - jump * t);
        }
      }
      add();
    }
    free_.push_back(std::move(values.dense));
  }

  struct Group {
    int64_t row;
    int rows;
    int64_t begin, end;  // of its columns
  };

  const TraceNetwork& network_;
  const TraceOptions options_;
  const std::atomic<bool>& stop_;
  SegmentRows exact_;
  const TraceInput* input_ = nullptr;
  Window window_{0, kWhole};
  std::vector<Window> windows_;  // that follow, the next one last
  std::vector<int64_t> cuts_;
  std::vector<uint8_t> last_on_;  // at the end of the window before
  int64_t written_ = 0;           // breakpoints of the segment so far
  int64_t projected_ = 0;         // how much of the projections has been used
  std::vector<Values> values_;
  std::vector<Buffer> free_;

  // The stage's rows.
  Doubles v_, a_, next_v_, reach_, sizes_, errors_;
  double error_ = 0;
  std::vector<int64_t> slot_;  // of each event: its row of dense_, or -1
  int64_t slots_ = 0;
  double* dense_ = nullptr;

  // The stage that is cut.
  const TraceStage* stage_ = nullptr;
  double rounding_ = 0;
  Doubles bound_, gaps_, out_sizes_;
  std::vector<uint8_t> positive_, negative_, sure_;  // [groups][slots][events]: a bit a row
  std::vector<Step> steps_;
  Doubles nothing_;                        // jumps of events that have none
  int64_t stride_ = 0;                     // events, filled up to whole blocks
  std::vector<uint8_t> above_, all_sure_;  // [groups]: at the last event
  std::vector<Look> looks_;
  std::vector<Crossing> sorted_;
  std::vector<Key> keys_;
  std::vector<Crossing> crossings_;
  std::vector<SegmentPoint> crossing_points_;
  std::vector<Zero> zeros_;
  std::vector<std::pair<int64_t, Jump>> ties_;

  std::vector<Event> events_, merged_;
  std::vector<int32_t> position_;  // of each event's number
  std::vector<int32_t> first_change_;
  std::vector<Change> changes_;
  std::vector<uint8_t> on_, now_;  // patterns of the first interval, and of interval placed_
  int64_t placed_ = -1;
  std::unordered_map<int32_t, SegmentPoint> points_;

  std::vector<Group> groups_;
  std::vector<int32_t> columns_;
  std::vector<const double*> from_;
  std::vector<double*> to_;
};

}  // namespace

std::unique_ptr<SegmentTracer> PLR_MAKE_TRACER(const TraceNetwork& network, const TraceOptions& options,
                                               const std::atomic<bool>& stop) {
  return std::make_unique<Tracer>(network, options, stop);
}

}  // namespace pylinregion
