// csrc/partition/trace.h -- the regions that segments run through.
//
// On a segment every row of the network is piecewise linear in t: a value and a slope at the start, and a jump of the
// slope at each breakpoint. Stage by stage, the jumps of a stage's rows are the weights times the jumps of the units
// before, and a new breakpoint is where a row meets a kink. Why the breakpoints and their order are exact:
// docs/exactness.md.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include "aligned.h"
#include "exact_rows.h"
#include "segment_rows.h"
#include "system.h"

namespace pylinregion {

// Weights of a stage's rows for the units of a source stage, or for the input (source -1).
struct TraceBlock {
  int64_t source, width;
  Doubles packed;          // [panels][width][groups of the panel * 8]: columns, see PanelPlan in linear.h
  Doubles row_norms;       // [padded] 2-norms of the rows, rounded up
  double norm, frobenius;  // upper bounds of the spectral and the Frobenius norm
};

// Per row, padded to whole vectors with rows that are 0 and have no kink.
struct TraceStage {
  int64_t rows, padded;
  std::vector<TraceBlock> blocks;
  Doubles bias;
  double bias_norm;           // >= its 2-norm
  int64_t first_line, slots;  // slots: kinks of the unit that has most
  std::vector<int32_t> line;  // [slots][padded]: the line of a row's kink, or -1
  Doubles kink;               // [slots][padded]: infinity where there is none
  Doubles kink_sizes;         // [padded]: the largest of a row's kinks in size
  Doubles slope;              // [slots + 1][padded]: of the pieces from the lowest
  Doubles intercept;          // [padded]: of each unit's constant part, see value_at
  Doubles intercepts;         // [slots + 1][padded]
  double lipschitz;           // >= |slope| of all pieces
  double largest_intercept;
  bool plain;        // units that change nothing
  int64_t last_use;  // the last stage that takes its units
};

class TraceNetwork {
 public:
  // norms[l][b] >= the spectral norm of block b of stage l.
  TraceNetwork(const std::vector<ExactStage>& stages, int64_t dimensions,
               const std::vector<std::vector<double>>& norms);

  std::vector<TraceStage> stages;
  int64_t dimensions, lines, outputs;
  int64_t last_with_lines;  // stage number, -1: none
  std::shared_ptr<DigitNetwork> digits;
};

// Products of the input weights of each stage that has such with an input.
struct Projected {
  const double* point;
  double norm;      // >= its 2-norm
  Doubles product;  // [sum over the stages with input weights of padded]
};

struct TraceInput {
  Segment segment;
  const Projected *first, *second;
};

// An array that grows at its end; large ones are not copied for it.
template <class T> class Growing {
 public:
  Growing() = default;
  Growing(Growing&& other) noexcept { *this = std::move(other); }
  Growing& operator=(Growing&& other) noexcept {
    std::swap(data_, other.data_), std::swap(size_, other.size_), std::swap(room_, other.room_);
    return *this;
  }
  ~Growing() { std::free(data_); }
  // n more elements, not cleared.
  T* more(size_t n) {
    if (size_ + n > room_) {
      room_ = std::max(size_ + n, room_ + room_ / 2);
      void* grown = std::realloc(data_, room_ * sizeof(T));
      if (!grown) throw std::bad_alloc();
      data_ = static_cast<T*>(grown);
    }
    size_ += n;
    return data_ + (size_ - n);
  }
  void add(const T* from, size_t n) {
    if (n) std::memcpy(more(n), from, n * sizeof(T));
  }
  void add(T value) { *more(1) = value; }
  void clear() { size_ = 0; }
  T* data() { return data_; }
  const T* data() const { return data_; }
  T* end() { return data_ + size_; }
  size_t size() const { return size_; }

 private:
  T* data_ = nullptr;
  size_t size_ = 0, room_ = 0;
};

// Segments one after another.
struct Traced {
  Growing<int64_t> breakpoints;    // [segments]: how many each has
  Growing<double> t;               // [breakpoints], ascending for each segment
  Growing<int64_t> change_counts;  // [breakpoints]
  Growing<int32_t> change_line;    // the lines that change at each, ascending
  Growing<double> maps;            // [regions, outputs, 2]: slope and value at t = 0
  std::vector<uint8_t> on;         // [lines]: the pattern of the last segment's first region

  void clear() { breakpoints.clear(), t.clear(), change_counts.clear(), change_line.clear(), maps.clear(); }
};

// One thread's tracing.
class SegmentTracer {
 public:
  virtual ~SegmentTracer() = default;
  virtual void project(const double* const* points, int64_t n, Projected* out) = 0;
  // Throws Interrupted when `stop` becomes true.
  virtual void trace(const TraceInput& input, Traced& out) = 0;  // adds a segment
  Decisions decisions;
};

struct Interrupted {};

struct TraceOptions {
  bool maps = true;
  bool force_exact = false;  // every decision in integers: a test
  bool one_window = false;   // long segments, too, in one piece: a test
};

using MakeTracer = std::unique_ptr<SegmentTracer> (*)(const TraceNetwork&, const TraceOptions&,
                                                      const std::atomic<bool>& stop);
std::unique_ptr<SegmentTracer> make_tracer_portable(const TraceNetwork&, const TraceOptions&, const std::atomic<bool>&);
std::unique_ptr<SegmentTracer> make_tracer_avx2(const TraceNetwork&, const TraceOptions&, const std::atomic<bool>&);
std::unique_ptr<SegmentTracer> make_tracer_avx512(const TraceNetwork&, const TraceOptions&, const std::atomic<bool>&);

struct TraceProgress {
  std::atomic<int64_t> segments{0}, regions{0};
  std::atomic<bool> stop{false};
};

// Segments [n] from starts to ends, [n, dimensions] each.
struct TraceResult {
  Growing<int64_t> offsets;         // [n + 1] into the breakpoints
  Growing<double> t;                // [breakpoints]
  Growing<int64_t> change_offsets;  // [breakpoints + 1]
  Growing<int32_t> change_line;
  Growing<double> maps;  // [breakpoints + n, outputs, 2]
  Decisions decisions;
};
TraceResult trace_segments(const TraceNetwork& network, const double* starts, const double* ends, int64_t n,
                           const TraceOptions& options, int threads, TraceProgress& progress);

// The arms from centres[i] to centres[i] +- radii[i] * direction, for the directions [n_directions, dimensions] that
// all have, or directions [n, n_directions, dimensions] of their own.
struct ArmsResult {
  std::vector<int64_t> changes;  // [n, stages]: units that are not on one piece on all arms
  std::vector<int64_t> regions;  // [n]: different patterns on the arms
  Decisions decisions;
};
ArmsResult trace_arms(const TraceNetwork& network, const double* centres, const double* radii, int64_t n,
                      const double* directions, int64_t n_directions, bool own_directions, const TraceOptions& options,
                      int threads, TraceProgress& progress);

}  // namespace pylinregion
