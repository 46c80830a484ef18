// csrc/partition/trace.cpp -- what tracing needs of a network, and many segments on several threads.
#include "trace.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <exception>
#include <limits>
#include <map>
#include <mutex>
#include <thread>

#include "../linear.h"
#include "../simd.h"

namespace pylinregion {
namespace {

constexpr int64_t kGroup = 8;
constexpr double kInflate = 1 + 1e-9;
constexpr int64_t kSegmentsAtOnce = 24;  // their inputs are multiplied with the weights together
constexpr int64_t kCentresAtOnce = 12;

int64_t padded(int64_t n) { return (n + kGroup - 1) / kGroup * kGroup; }

double norm_of(const double* x, int64_t n) {  // >= the 2-norm
  double largest = 0, sum = 0;
  for (int64_t i = 0; i < n; ++i) largest = std::max(largest, std::fabs(x[i]));
  if (largest == 0) return 0;
  for (int64_t i = 0; i < n; ++i) sum += (x[i] / largest) * (x[i] / largest);
  return largest * std::sqrt(sum) * kInflate;
}

TraceBlock block_of(const ExactBlock& block, int64_t rows, int64_t width, double norm) {
  TraceBlock out;
  out.source = block.source;
  out.width = width;
  out.norm = norm;
  out.frobenius = norm_of(block.weight, rows * width);
  out.row_norms.assign(static_cast<size_t>(padded(rows)), 0.0);
  for (int64_t r = 0; r < rows; ++r) out.row_norms[static_cast<size_t>(r)] = norm_of(block.weight + r * width, width);
  out.packed.assign(static_cast<size_t>(padded(rows) * width), 0.0);
  const PanelPlan plan(padded(rows), kGroup);
  for (int64_t p = 0; p < plan.panels; ++p) {
    const int64_t first = plan.first_group(p) * kGroup, stride = plan.width(p) * kGroup;
    double* panel = out.packed.data() + first * width;
    for (int64_t r = first; r < std::min(rows, first + stride); ++r)
      for (int64_t c = 0; c < width; ++c) panel[c * stride + r - first] = block.weight[r * width + c];
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

// work(worker, piece) for pieces [0, pieces), in any order; an exception stops the others.
template <class Work> void on_threads(int64_t pieces, int threads, std::atomic<bool>& stop, const Work& work) {
  const int64_t workers = std::max<int64_t>(1, std::min<int64_t>(threads, pieces));
  std::atomic<int64_t> next{0};
  std::vector<std::exception_ptr> errors(static_cast<size_t>(workers));
  const auto run = [&](int64_t worker) {
    try {
      for (int64_t piece; (piece = next++) < pieces;) work(worker, piece);
    } catch (const Interrupted&) {
    } catch (...) {
      errors[static_cast<size_t>(worker)] = std::current_exception();
      stop = true;
    }
  };
  std::vector<std::thread> pool;
  for (int64_t worker = 1; worker < workers; ++worker) {
    try {
      pool.emplace_back(run, worker);
    } catch (const std::system_error&) {
      break;  // the system gives no more threads: fewer do the work
    }
  }
  run(0);
  for (std::thread& thread : pool) thread.join();
  for (const std::exception_ptr& error : errors)
    if (error) std::rethrow_exception(error);
}

void add(Decisions& to, const Decisions& what) {
  to.filter += what.filter;
  to.exact += what.exact;
  to.zeros += what.zeros;
}

// Pieces come in any order and go to the result in theirs. Their memory is used again.
class Collector {
 public:
  explicit Collector(TraceResult& result) : result_(result) {
    result_.offsets.add(0);
    result_.change_offsets.add(0);
  }
  Traced fresh() {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (free_.empty()) return Traced();
    Traced out = std::move(free_.back());
    free_.pop_back();
    out.clear();
    return out;
  }
  void put(int64_t piece, Traced traced) {
    const std::lock_guard<std::mutex> lock(mutex_);
    waiting_.emplace(piece, std::move(traced));
    for (auto found = waiting_.find(next_); found != waiting_.end(); found = waiting_.find(++next_)) {
      const Traced& each = found->second;
      add_up(each.breakpoints, breakpoints_, result_.offsets);
      add_up(each.change_counts, changes_, result_.change_offsets);
      result_.t.add(each.t.data(), each.t.size());
      result_.change_line.add(each.change_line.data(), each.change_line.size());
      result_.maps.add(each.maps.data(), each.maps.size());
      free_.push_back(std::move(found->second));
      waiting_.erase(found);
    }
  }

 private:
  static void add_up(const Growing<int64_t>& counts, int64_t& sum, Growing<int64_t>& out) {
    int64_t* to = out.more(counts.size());
    for (size_t i = 0; i < counts.size(); ++i) to[i] = sum += counts.data()[i];
  }

  TraceResult& result_;
  std::mutex mutex_;
  std::map<int64_t, Traced> waiting_;
  std::vector<Traced> free_;
  int64_t next_ = 0, breakpoints_ = 0, changes_ = 0;
};
}  // namespace

TraceNetwork::TraceNetwork(const std::vector<ExactStage>& given, int64_t inputs,
                           const std::vector<std::vector<double>>& norms)
    : dimensions(inputs), lines(0), outputs(given.back().rows), last_with_lines(-1) {
  for (size_t l = 0; l < given.size(); ++l) {
    const ExactStage& from = given[l];
    TraceStage to;
    to.rows = from.rows;
    to.padded = padded(from.rows);
    for (size_t b = 0; b < from.blocks.size(); ++b) {
      const ExactBlock& block = from.blocks[b];
      const int64_t width = block.source < 0 ? inputs : given[static_cast<size_t>(block.source)].rows;
      to.blocks.push_back(block_of(block, from.rows, width, norms[l][b]));
      if (block.source >= 0) stages[static_cast<size_t>(block.source)].last_use = static_cast<int64_t>(l);
    }
    to.bias.assign(static_cast<size_t>(to.padded), 0.0);
    std::copy_n(from.bias, from.rows, to.bias.begin());
    to.bias_norm = norm_of(from.bias, from.rows);
    to.first_line = lines;
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
    to.plain = to.slots == 0;
    for (int64_t r = 0; r < from.rows; ++r) {
      const int64_t begin = from.line_begin[r] - from.line_begin[0], n = from.line_begin[r + 1] - from.line_begin[r];
      for (size_t s = 0; s <= kinks; ++s) {
        const size_t at = s * size + static_cast<size_t>(r);
        const int64_t piece = begin + r + std::min<int64_t>(static_cast<int64_t>(s), n);
        to.slope[at] = from.slopes[piece] / from.denominator;
        to.intercept[at] = from.intercepts[piece] / from.denominator;
        to.lipschitz = std::max(to.lipschitz, std::fabs(to.slope[at]) * kInflate);
        to.largest_intercept = std::max(to.largest_intercept, std::fabs(to.intercept[at]) * kInflate);
        to.plain &= from.slopes[piece] == from.denominator && from.intercepts[piece] == 0;
        if (static_cast<int64_t>(s) < n) {
          to.line[at] = static_cast<int32_t>(lines + begin + static_cast<int64_t>(s));
          to.kink[at] = from.kinks[begin + static_cast<int64_t>(s)];
          to.kink_sizes[static_cast<size_t>(r)] =
              std::max(to.kink_sizes[static_cast<size_t>(r)], std::fabs(to.kink[at]));
        }
      }
    }
    to.last_use = -1;
    lines += from.line_begin[from.rows] - from.line_begin[0];
    stages.push_back(std::move(to));
  }
  digits = digit_network(given, inputs);
}

TraceResult trace_segments(const TraceNetwork& network, const double* starts, const double* ends, int64_t n,
                           const TraceOptions& options, int threads, TraceProgress& progress) {
  const int64_t pieces = (n + kSegmentsAtOnce - 1) / kSegmentsAtOnce, d = network.dimensions;
  const int64_t workers = std::max(1, threads);
  std::vector<std::unique_ptr<SegmentTracer>> tracers(static_cast<size_t>(workers));
  TraceResult result;
  Collector collector(result);
  on_threads(pieces, threads, progress.stop, [&](int64_t worker, int64_t piece) {
    std::unique_ptr<SegmentTracer>& tracer = tracers[static_cast<size_t>(worker)];
    if (!tracer) tracer = make_tracer()(network, options, progress.stop);
    const int64_t begin = piece * kSegmentsAtOnce, end = std::min(n, begin + kSegmentsAtOnce), count = end - begin;
    std::vector<const double*> points;
    for (int64_t i = begin; i < end; ++i) points.push_back(starts + i * d);
    for (int64_t i = begin; i < end; ++i) points.push_back(ends + i * d);
    std::vector<Projected> projected(points.size());
    tracer->project(points.data(), 2 * count, projected.data());
    Traced out = collector.fresh();
    for (int64_t i = 0; i < count; ++i) {
      const Projected &first = projected[static_cast<size_t>(i)], &second = projected[static_cast<size_t>(count + i)];
      tracer->trace({{first.point, second.point, false, 0}, &first, &second}, out);
      progress.segments += 1;
      progress.regions += out.breakpoints.data()[i] + 1;
    }
    collector.put(piece, std::move(out));
  });
  for (const auto& tracer : tracers)
    if (tracer) add(result.decisions, tracer->decisions);
  return result;
}

namespace {

// The patterns on the arms around one point: which are different, and which units change.
class Arms {
 public:
  explicit Arms(const TraceNetwork& network) : network_(network) {
    unit_of_.resize(static_cast<size_t>(network.lines));
    for (const TraceStage& stage : network.stages)
      for (size_t i = 0; i < stage.line.size(); ++i)
        if (stage.line[i] >= 0) {
          stage_of_.resize(static_cast<size_t>(network.lines));
          unit_of_[static_cast<size_t>(stage.line[i])] = static_cast<int32_t>(i % static_cast<size_t>(stage.padded));
          stage_of_[static_cast<size_t>(stage.line[i])] = static_cast<int32_t>(&stage - network.stages.data());
        }
  }
  void clear() { arms_.clear(); }
  void add(const Traced& traced) {
    Arm arm{traced.on, {0}, {}};
    arm.change_line.assign(traced.change_line.data(), traced.change_line.data() + traced.change_line.size());
    for (size_t k = 0; k < traced.t.size(); ++k)
      arm.change_begin.push_back(arm.change_begin.back() + traced.change_counts.data()[k]);
    arms_.push_back(std::move(arm));
  }

  // changes [stages] and the number of patterns.
  int64_t count(int64_t* changes) {
    changed_.assign(static_cast<size_t>(network_.lines), 0);
    seen_.clear();
    const std::vector<uint8_t>& first = arms_[0].on;
    for (size_t p = 0; p < arms_.size(); ++p) {
      const Arm& arm = arms_[p];
      Hash hash{0, 0};
      for (size_t r = 0; r < first.size(); ++r) {
        if (arm.on[r] != first[r]) {
          changed_[r] = 1;
          toggle(hash, static_cast<int32_t>(r));
        }
      }
      seen_.push_back({hash, p, 0});
      for (size_t k = 0; k + 1 < arm.change_begin.size(); ++k) {
        for (int64_t c = arm.change_begin[k]; c < arm.change_begin[k + 1]; ++c) {
          const int32_t line = arm.change_line[static_cast<size_t>(c)];
          changed_[static_cast<size_t>(line)] = 1;
          toggle(hash, line);
        }
        seen_.push_back({hash, p, k + 1});
      }
    }
    std::fill_n(changes, network_.stages.size(), int64_t{0});
    int32_t unit = -1, stage = -1;  // lines of a unit follow each other
    for (size_t r = 0; r < changed_.size(); ++r) {
      if (!changed_[r] || (unit == unit_of_[r] && stage == stage_of_[r])) continue;
      unit = unit_of_[r], stage = stage_of_[r];
      ++changes[stage];
    }
    return different();
  }

 private:
  struct Arm {
    std::vector<uint8_t> on;
    std::vector<int64_t> change_begin;
    std::vector<int32_t> change_line;
  };
  struct Hash {  // of the lines that are not as in the first region of the first arm
    uint64_t high, low;
    bool operator<(const Hash& other) const { return high != other.high ? high < other.high : low < other.low; }
    bool operator==(const Hash& other) const { return high == other.high && low == other.low; }
  };
  struct Region {
    Hash hash;
    size_t arm, number;
  };
  static uint64_t mixed(uint64_t x) {  // splitmix64
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
  }
  static void toggle(Hash& hash, int32_t line) {
    hash.high ^= mixed(static_cast<uint64_t>(line));
    hash.low ^= mixed(~static_cast<uint64_t>(line));
  }
  std::vector<uint8_t> pattern(const Region& region) const {
    const Arm& arm = arms_[region.arm];
    std::vector<uint8_t> on = arm.on;
    for (int64_t c = 0; c < arm.change_begin[region.number]; ++c)
      on[static_cast<size_t>(arm.change_line[static_cast<size_t>(c)])] ^= 1;
    return on;
  }
  // Patterns are told apart by their hashes; where these are equal, bit by bit.
  int64_t different() {
    std::sort(seen_.begin(), seen_.end(), [](const Region& a, const Region& b) { return a.hash < b.hash; });
    int64_t found = 0;
    std::vector<std::vector<uint8_t>> same;
    for (size_t i = 0; i < seen_.size();) {
      size_t j = i + 1;
      while (j < seen_.size() && seen_[j].hash == seen_[i].hash) ++j;
      if (j == i + 1) {
        ++found;
      } else {
        same.clear();
        for (; i < j; ++i) {
          std::vector<uint8_t> on = pattern(seen_[i]);
          if (std::find(same.begin(), same.end(), on) == same.end()) same.push_back(std::move(on));
        }
        found += static_cast<int64_t>(same.size());
      }
      i = j;
    }
    return found;
  }

  const TraceNetwork& network_;
  std::vector<int32_t> unit_of_, stage_of_;
  std::vector<Arm> arms_;
  std::vector<uint8_t> changed_;
  std::vector<Region> seen_;
};
}  // namespace

ArmsResult trace_arms(const TraceNetwork& network, const double* centres, const double* radii, int64_t n,
                      const double* directions, int64_t n_directions, bool own_directions, const TraceOptions& given,
                      int threads, TraceProgress& progress) {
  TraceOptions options = given;
  options.maps = false;
  const int64_t pieces = (n + kCentresAtOnce - 1) / kCentresAtOnce, d = network.dimensions,
                stages = static_cast<int64_t>(network.stages.size());
  const int64_t workers = std::max(1, threads);
  std::vector<std::unique_ptr<SegmentTracer>> tracers(static_cast<size_t>(workers));
  std::vector<Projected> shared;
  std::vector<const double*> points;
  if (!own_directions && n) {
    tracers[0] = make_tracer()(network, options, progress.stop);
    for (int64_t p = 0; p < n_directions; ++p) points.push_back(directions + p * d);
    shared.resize(points.size());
    tracers[0]->project(points.data(), n_directions, shared.data());
  }
  ArmsResult result;
  result.changes.resize(static_cast<size_t>(n * stages));
  result.regions.resize(static_cast<size_t>(n));
  on_threads(pieces, threads, progress.stop, [&](int64_t worker, int64_t piece) {
    std::unique_ptr<SegmentTracer>& tracer = tracers[static_cast<size_t>(worker)];
    if (!tracer) tracer = make_tracer()(network, options, progress.stop);
    const int64_t begin = piece * kCentresAtOnce, end = std::min(n, begin + kCentresAtOnce), count = end - begin;
    std::vector<const double*> inputs;
    for (int64_t i = begin; i < end; ++i) inputs.push_back(centres + i * d);
    if (own_directions)
      for (int64_t i = begin * n_directions; i < end * n_directions; ++i) inputs.push_back(directions + i * d);
    std::vector<Projected> projected(inputs.size());
    tracer->project(inputs.data(), static_cast<int64_t>(inputs.size()), projected.data());
    Arms arms(network);
    Traced traced;
    for (int64_t i = 0; i < count; ++i) {
      arms.clear();
      const Projected& centre = projected[static_cast<size_t>(i)];
      int64_t regions = 0;
      for (int64_t p = 0; p < n_directions; ++p) {
        const Projected& direction = own_directions ? projected[static_cast<size_t>(count + i * n_directions + p)]
                                                    : shared[static_cast<size_t>(p)];
        traced.clear();
        tracer->trace({{centre.point, direction.point, true, radii[begin + i]}, &centre, &direction}, traced);
        arms.add(traced);
        regions += static_cast<int64_t>(traced.t.size()) + 1;
      }
      result.regions[static_cast<size_t>(begin + i)] = arms.count(result.changes.data() + (begin + i) * stages);
      progress.segments += 1;
      progress.regions += regions;
    }
  });
  for (const auto& tracer : tracers)
    if (tracer) add(result.decisions, tracer->decisions);
  return result;
}

}  // namespace pylinregion
