// csrc/partition/trace.h -- the regions that segments run through.
//
// On a segment every row of the network is piecewise linear in t: a value and a slope at the start, and a jump of the
// slope at each breakpoint. Stage by stage, the jumps of a stage's rows are the weights times the jumps of the units
// before, and a new breakpoint is where a row meets a kink. Why the breakpoints and their order are exact:
// docs/exactness.md.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "aligned.h"
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
  int64_t slots;              // kinks of the unit that has most
  std::vector<int32_t> line;  // [slots][padded]: the line of a row's kink, or -1
  Doubles kink;               // [slots][padded]: infinity where there is none
  Doubles kink_sizes;         // [padded]: the largest of a row's kinks in size
  Doubles slope;              // [slots + 1][padded]: of the pieces from the lowest
  Doubles intercept;          // [slots + 1][padded]: where a piece would be at z = 0
  double lipschitz;           // >= |slope| of all pieces
  double largest_intercept;   // >= their size
};

class TraceNetwork {
 public:
  // norms[l][b] >= the spectral norm of block b of stage l.
  TraceNetwork(const std::vector<ExactStage>& stages, int64_t dimensions,
               const std::vector<std::vector<double>>& norms);

  std::vector<TraceStage> stages;
  int64_t dimensions, lines, outputs;
  int64_t last_with_lines;  // stage number, -1: none
  int64_t input_rows;       // padded rows of the stages with input weights
  Doubles output_scales;    // [outputs]: the norm of the last stage's weights over that of an output's, 0: it has none
  std::shared_ptr<SegmentNetwork> digits;
};

// n segments, from first[pairs[i][0]] to second[pairs[i][1]]; with radii from p - r q to p + r q instead.
struct Segments {
  int64_t n;
  const int64_t* pairs;          // [n, 2]
  const double *first, *second;  // [n_first, dimensions], [n_second, dimensions]
  int64_t n_first, n_second;
  const double* radii;  // [n], or null
};

struct TraceOptions {
  bool maps = true;
  bool starts = false;
  bool force_exact = false;  // every decision in integers: a test
};

// Segments one after another.
struct Traced {
  Array<int64_t> breakpoints;    // [segments]: how many each has
  Doubles t;                     // [breakpoints], ascending for each segment
  Array<int64_t> change_counts;  // [breakpoints]
  Array<int32_t> changes;        // the lines that change at each, ascending
  Doubles maps;                  // [regions, outputs, 2]: slope and value at t = 0; NaN: find them another way
  Array<uint8_t> starts;         // [segments, bytes]: bit r % 8 of byte r / 8: line r in the first region
};

struct TraceProgress {
  std::atomic<int64_t> segments{0};
  std::atomic<bool> stop{false};
};

struct Interrupted {};

// One thread's tracing.
class SegmentTracer {
 public:
  virtual ~SegmentTracer() = default;
  // The products of the input weights with n points: [n, input_rows], and upper bounds of the points' 2-norms.
  virtual void project(const double* points, int64_t n, double* products, double* norms) = 0;
  // Adds a segment. `first`, `second`: products of its two points; size: >= |first| + |second| in 2-norms, the second
  // times the radius. Throws Interrupted when `stop` becomes true.
  virtual void trace(const Segment& segment, const double* first, const double* second, double size, Traced& out) = 0;
  Decisions decisions;
};

using MakeTracer = std::unique_ptr<SegmentTracer> (*)(const TraceNetwork&, const TraceOptions&,
                                                      const std::atomic<bool>& stop);
std::unique_ptr<SegmentTracer> make_tracer_portable(const TraceNetwork&, const TraceOptions&, const std::atomic<bool>&);
std::unique_ptr<SegmentTracer> make_tracer_avx2(const TraceNetwork&, const TraceOptions&, const std::atomic<bool>&);
std::unique_ptr<SegmentTracer> make_tracer_avx512(const TraceNetwork&, const TraceOptions&, const std::atomic<bool>&);

struct TraceResult : Traced {
  Decisions decisions;
};
TraceResult trace_segments(const TraceNetwork& network, const Segments& segments, const TraceOptions& options,
                           int threads, TraceProgress& progress);

}  // namespace pylinregion
