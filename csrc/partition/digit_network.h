// csrc/partition/digit_network.h -- a network's own weights, and the way back from a line to its exact row.
//
// A line is where a unit bends: z = kink, with z affine on a cell. Its row is found from the weights and the pieces
// that the units before it are on, backwards: one vector-matrix product per stage, in digits that are doubles
// (digits.h), exact.
#pragma once
#include <cstdint>
#include <utility>
#include <vector>

#include "linear_map.h"
#include "scaled.h"

namespace pylinregion {

// What a stage's rows take from the units of a source stage, or from the input (source -1).
struct ExactBlock {
  int64_t source;
  LinearMap map;
};

// z = bias + sum of blocks; unit u is a continuous piecewise linear function of row u, divided by `denominator`:
// slopes[p] * z + intercepts[p] on piece p = number of its lines that are on. Lines are numbered through the network.
struct ExactStage {
  int64_t rows;
  std::vector<ExactBlock> blocks;
  const double* bias;         // [rows]
  const int64_t* line_begin;  // [rows + 1] line numbers
  const double* kinks;        // [lines of the stage], ascending for each unit
  const double* slopes;       // [lines + rows]: the pieces of unit 0, of unit 1, ...
  const double* intercepts;   // the same
  double denominator;

  int64_t lines() const { return line_begin[rows] - line_begin[0]; }
  int64_t pieces() const { return rows + lines(); }
};

class DigitNetwork {
 public:
  explicit DigitNetwork(std::vector<ExactStage> stages);
  // Makes the digits of all weights but the input's, before pull_back.
  void prepare(const ScaledArithmetic& arithmetic);

  const std::vector<ExactStage>& stages() const { return stages_; }
  int64_t lines() const { return first_lines_.back(); }
  size_t stage_of(int64_t line) const;
  int64_t first_line(size_t stage) const { return first_lines_[stage]; }
  bool is_only_line(int64_t line) const;  // of its unit

  // The row z - kink of a line under a pattern, up to a positive factor; with `less`, another line of its stage or -1,
  // the difference of their rows, without kinks. on[line] is 1 where the line's unit is above its kink; only lines of
  // stages before it are read. Of the row the sink is given all that is not weights of units:
  //   sink.rows(stage, g)     it has the rows of a stage, but for these weights, g times
  //   sink.constant(number)   and a number besides
  //   sink.multiply(integer)  and all that so far so many times.
  template <class Sink> void pull_back(int64_t line, int64_t less, const uint8_t* on, Sink& sink) const {
    const size_t l = stage_of(line);
    std::vector<Scaled> pending(stages_.size());  // vectors on the units of stages
    const double kink = less < 0 ? -stages_[l].kinks[line - stages_[l].line_begin[0]] : 0;
    if (kink != 0) sink.constant(arithmetic_.vector(&kink, 1));
    push(l, chosen_rows(l, line, less), pending, sink);
    for (size_t j = l; j-- > 0;) {
      if (!pending[j].present) continue;
      if (const double times = stages_[j].denominator; times != 1) {  // its units are so many times too large
        for (size_t i = 0; i < j; ++i) arithmetic_.multiply(pending[i], times);
        sink.multiply(times);
      }
      Scaled g = std::move(pending[j]);
      through_units(j, on, g, sink);
      push(j, g, pending, sink);
      pending[j] = Scaled();
    }
  }

 private:
  struct Prepared {
    std::vector<std::pair<size_t, DigitMap>> blocks;  // from stages
    bool simple;                                      // slopes -1, 0, 1 and no intercepts
  };
  struct Pieces {
    std::vector<double> slopes, intercepts;  // [units]
  };

  Scaled chosen_rows(size_t stage, int64_t line, int64_t less) const;
  Pieces pieces(size_t stage, const uint8_t* on) const;

  // A vector on the rows of a stage, pushed to the units before and to the sink.
  template <class Sink> void push(size_t stage, const Scaled& g, std::vector<Scaled>& pending, Sink& sink) const {
    for (const auto& [source, map] : prepared_[stage].blocks) arithmetic_.add(pending[source], map.back(g));
    sink.rows(stage, g);
  }
  // A vector on the units of a stage, through the pieces that they are on to the rows.
  template <class Sink> void through_units(size_t stage, const uint8_t* on, Scaled& g, Sink& sink) const {
    const Pieces on_pieces = pieces(stage, on);
    const int64_t n = stages_[stage].rows;
    if (prepared_[stage].simple) {
      for (int64_t q = 0; q < g.digits.levels(); ++q) {
        double* digits = g.digits.level(q);
        for (int64_t u = 0; u < n; ++u) digits[u] *= on_pieces.slopes[static_cast<size_t>(u)];
      }
      return;
    }
    sink.constant(arithmetic_.dot(g, arithmetic_.vector(on_pieces.intercepts.data(), n)));
    g = arithmetic_.products(g, arithmetic_.vector(on_pieces.slopes.data(), n));
  }

  std::vector<ExactStage> stages_;
  std::vector<int64_t> first_lines_;  // [stages + 1]
  ScaledArithmetic arithmetic_ = ScaledArithmetic::of_any_length();
  std::vector<Prepared> prepared_;
};

}  // namespace pylinregion
