// csrc/partition/trace.cpp -- what tracing needs of a network, and many segments on several threads.
#include "trace.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <mutex>
#include <stdexcept>

#include "../linear.h"
#include "../parallel.h"
#include "../rounding.h"
#include "../simd.h"

namespace pylinregion {
namespace {

constexpr int64_t kGroup = 8;
constexpr int64_t kAtOnce = 24;  // points, then segments, that a thread takes from the rest

int64_t padded(int64_t n) { return (n + kGroup - 1) / kGroup * kGroup; }

double norm_of(const double* x, int64_t n) {  // >= the 2-norm
  double largest = 0, sum = 0;
  for (int64_t i = 0; i < n; ++i) largest = std::max(largest, std::fabs(x[i]));
  if (largest == 0) return 0;
  for (int64_t i = 0; i < n; ++i) sum += (x[i] / largest) * (x[i] / largest);
  return largest * std::sqrt(sum) * (kInflate + static_cast<double>(n) * kUnit);
}

TraceBlock block_of(const ExactBlock& block, int64_t rows, int64_t width, double norm) {
  if (block.map.kind != LinearMap::Kind::dense || block.map.dense.places != 1)
    throw std::invalid_argument("segments are traced through matrices");
  const double* const weight = block.map.numbers;
  TraceBlock out;
  out.source = block.source;
  out.width = width;
  out.norm = norm;
  out.frobenius = norm_of(weight, rows * width);
  out.row_norms.assign(static_cast<size_t>(padded(rows)), 0.0);
  for (int64_t r = 0; r < rows; ++r) out.row_norms[static_cast<size_t>(r)] = norm_of(weight + r * width, width);
  out.packed.assign(static_cast<size_t>(padded(rows) * width), 0.0);
  const PanelPlan plan(padded(rows), kGroup);
  for (int64_t p = 0; p < plan.panels; ++p) {
    const int64_t first = plan.first_group(p) * kGroup, stride = plan.width(p) * kGroup;
    double* panel = out.packed.data() + first * width;
    for (int64_t r = first; r < std::min(rows, first + stride); ++r)
      for (int64_t c = 0; c < width; ++c) panel[c * stride + r - first] = weight[r * width + c];
  }
  return out;
}

MakeTracer make_tracer() {
#if defined(__x86_64__)
  if (simd() == Simd::avx512) return make_tracer_avx512;
  if (simd() == Simd::avx2) return make_tracer_avx2;
#endif
  return make_tracer_portable;
}

// Batches of segments come in any order and go to the result in theirs. Their memory is used again.
class Collector {
 public:
  explicit Collector(int64_t batches) : batches_(batches) {}
  Traced fresh() {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (free_.empty()) return Traced();
    Traced out = std::move(free_.back());
    free_.pop_back();
    out.breakpoints.clear(), out.t.clear(), out.change_counts.clear();
    out.changes.clear(), out.maps.clear(), out.starts.clear();
    return out;
  }
  void put(int64_t batch, Traced traced) {
    const std::lock_guard<std::mutex> lock(mutex_);
    waiting_.emplace(batch, std::move(traced));
    for (auto found = waiting_.find(next_); found != waiting_.end(); found = waiting_.find(++next_)) {
      append(result.breakpoints, found->second.breakpoints);
      append(result.t, found->second.t);
      append(result.change_counts, found->second.change_counts);
      append(result.changes, found->second.changes);
      append(result.maps, found->second.maps);
      append(result.starts, found->second.starts);
      free_.push_back(std::move(found->second));
      waiting_.erase(found);
    }
  }
  TraceResult result;

 private:
  template <class T> void append(Array<T>& to, const Array<T>& from) const {
    const size_t n = to.size();
    if (n + from.size() > to.capacity())  // as much as it will be if the other batches are like those so far
      to.reserve((n + from.size()) / static_cast<size_t>(next_ + 1) * static_cast<size_t>(batches_) * 9 / 8);
    to.resize(n + from.size());
    if (!from.empty()) std::memcpy(to.data() + n, from.data(), from.size() * sizeof(T));
  }
  const int64_t batches_;
  std::mutex mutex_;
  std::map<int64_t, Traced> waiting_;
  std::vector<Traced> free_;
  int64_t next_ = 0;
};
}  // namespace

TraceNetwork::TraceNetwork(const std::vector<ExactStage>& given, int64_t inputs,
                           const std::vector<std::vector<double>>& norms)
    : dimensions(inputs), lines(0), outputs(given.back().rows), last_with_lines(-1), input_rows(0) {
  for (size_t l = 0; l < given.size(); ++l) {
    const ExactStage& from = given[l];
    TraceStage to;
    to.rows = from.rows;
    to.padded = padded(from.rows);
    for (size_t b = 0; b < from.blocks.size(); ++b) {
      const ExactBlock& block = from.blocks[b];
      const int64_t width = block.source < 0 ? inputs : given[static_cast<size_t>(block.source)].rows;
      to.blocks.push_back(block_of(block, from.rows, width, norms[l][b]));
      if (block.source < 0) input_rows += to.padded;
    }
    to.bias.assign(static_cast<size_t>(to.padded), 0.0);
    std::copy_n(from.bias, from.rows, to.bias.begin());
    to.bias_norm = norm_of(from.bias, from.rows);
    to.slots = 0;
    for (int64_t r = 0; r < from.rows; ++r) to.slots = std::max(to.slots, from.line_begin[r + 1] - from.line_begin[r]);
    if (to.slots) last_with_lines = static_cast<int64_t>(l);
    const size_t size = static_cast<size_t>(to.padded), kinks = static_cast<size_t>(to.slots);
    to.line.assign(kinks * size, -1);
    to.kink.assign(kinks * size, std::numeric_limits<double>::infinity());
    to.kink_sizes.assign(size, 0.0);
    to.slope.assign((kinks + 1) * size, 0.0);
    to.intercept.assign((kinks + 1) * size, 0.0);
    to.lipschitz = to.largest_intercept = 0;
    for (int64_t r = 0; r < from.rows; ++r) {
      const int64_t begin = from.line_begin[r] - from.line_begin[0], n = from.line_begin[r + 1] - from.line_begin[r];
      for (size_t s = 0; s <= kinks; ++s) {
        const size_t at = s * size + static_cast<size_t>(r);
        const int64_t piece = begin + r + std::min<int64_t>(static_cast<int64_t>(s), n);
        to.slope[at] = from.slopes[piece] / from.denominator;
        to.intercept[at] = from.intercepts[piece] / from.denominator;
        to.lipschitz = std::max(to.lipschitz, std::fabs(to.slope[at]) * kInflate);
        to.largest_intercept = std::max(to.largest_intercept, std::fabs(to.intercept[at]) * kInflate);
        if (static_cast<int64_t>(s) < n) {
          to.line[at] = static_cast<int32_t>(lines + begin + static_cast<int64_t>(s));
          to.kink[at] = from.kinks[begin + static_cast<int64_t>(s)];
          to.kink_sizes[static_cast<size_t>(r)] =
              std::max(to.kink_sizes[static_cast<size_t>(r)], std::fabs(to.kink[at]));
        }
      }
    }
    lines += from.line_begin[from.rows] - from.line_begin[0];
    stages.push_back(std::move(to));
  }
  output_scales.assign(static_cast<size_t>(outputs), 0.0);
  for (int64_t o = 0; o < outputs; ++o) {
    double whole = 0, own = 0;
    for (const TraceBlock& block : stages.back().blocks)
      whole += block.frobenius, own += block.row_norms[static_cast<size_t>(o)];
    if (own > 0) output_scales[static_cast<size_t>(o)] = whole / own;
  }
  digits = segment_network(given, inputs);
}

TraceResult trace_segments(const TraceNetwork& network, const Segments& segments, const TraceOptions& options,
                           int threads, TraceProgress& progress) {
  const int64_t d = network.dimensions, rows = network.input_rows;
  Collector collector((segments.n + kAtOnce - 1) / kAtOnce);
  std::mutex mutex;
  // Every thread takes batches until there are none: work(tracer, begin, end).
  const auto share = [&](int64_t items, const auto& work) {
    std::atomic<int64_t> next{0};
    parallel_ranges(std::min<int64_t>(threads, (items + kAtOnce - 1) / kAtOnce), threads, [&](int64_t, int64_t) {
      const std::unique_ptr<SegmentTracer> tracer = make_tracer()(network, options, progress.stop);
      try {
        for (int64_t begin; (begin = kAtOnce * next++) < items;) work(*tracer, begin, std::min(items, begin + kAtOnce));
      } catch (const Interrupted&) {
      } catch (...) {
        progress.stop = true;
        throw;
      }
      const std::lock_guard<std::mutex> lock(mutex);
      Decisions& sum = collector.result.decisions;
      sum.filter += tracer->decisions.filter;
      sum.exact += tracer->decisions.exact;
      sum.zeros += tracer->decisions.zeros;
    });
  };
  struct Points {
    const double* at;
    Doubles products, norms;
  } ends[2] = {{segments.first, {}, {}}, {segments.second, {}, {}}};
  for (Points& points : ends) {
    const int64_t n = &points == ends ? segments.n_first : segments.n_second;
    points.products.resize(static_cast<size_t>(n * rows));
    points.norms.resize(static_cast<size_t>(n));
    share(n, [&](SegmentTracer& tracer, int64_t begin, int64_t end) {
      if (progress.stop.load(std::memory_order_relaxed)) throw Interrupted();
      tracer.project(points.at + begin * d, end - begin, points.products.data() + begin * rows,
                     points.norms.data() + begin);
    });
  }
  share(segments.n, [&](SegmentTracer& tracer, int64_t begin, int64_t end) {
    Traced out = collector.fresh();
    for (int64_t i = begin; i < end; ++i) {
      const int64_t p = segments.pairs[2 * i], q = segments.pairs[2 * i + 1];
      const double radius = segments.radii ? segments.radii[i] : 1;
      const double size = ends[0].norms[static_cast<size_t>(p)] + radius * ends[1].norms[static_cast<size_t>(q)];
      tracer.trace({ends[0].at + p * d, ends[1].at + q * d, segments.radii != nullptr, radius},
                   ends[0].products.data() + p * rows, ends[1].products.data() + q * rows, size * kInflate, out);
      ++progress.segments;
    }
    collector.put(begin / kAtOnce, std::move(out));
  });
  return std::move(collector.result);
}

}  // namespace pylinregion
