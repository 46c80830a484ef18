// csrc/partition/segment_rows.h -- the signs on segments, and at points of slices, that float64 cannot decide, decided
// in integers.
//
// On a segment a row is known by its values at the two ends, and a point by two weights of these ends.
#pragma once
#include <array>
#include <memory>
#include <unordered_map>
#include <vector>

#include "bigint.h"
#include "digit_network.h"

namespace pylinregion {

// From `first` to `second`, or, centred, from first - radius * second to first + radius * second.
struct Segment {
  const double *first, *second;  // [dimensions]; they identify what is kept about them, see SegmentRows
  bool centred;
  double radius;
};

// What a row is at the start and at the end, up to a positive factor.
using SegmentRow = std::array<BigInt, 2>;
// A point as weights of the start and the end, not negative, not both zero.
using SegmentPoint = std::array<BigInt, 2>;

inline int sign_at(const SegmentRow& row, const SegmentPoint& point) {
  return (row[0] * point[0] + row[1] * point[1]).sign();
}
// Where a row is zero that has opposite signs at the ends.
inline SegmentPoint zero_of(const SegmentRow& row) {
  return {row[1].sign() < 0 ? -row[1] : row[1], row[0].sign() < 0 ? -row[0] : row[0]};
}
// -1 if p comes before q, 0 if they are one point, 1 if after.
inline int order(const SegmentPoint& p, const SegmentPoint& q) { return (p[1] * q[0] - q[1] * p[0]).sign(); }

// Where a point is, from 0 at the start to 1 at the end, to a few units in the last place.
double position_of(const SegmentPoint& point);

// A network and its input in digits, which are made when the first doubt comes.
class SegmentNetwork;
std::shared_ptr<SegmentNetwork> segment_network(std::vector<ExactStage> stages, int64_t dimensions);

// One thread's access. Inputs are told apart by their addresses, and must stay as they are.
class SegmentRows {
 public:
  explicit SegmentRows(std::shared_ptr<SegmentNetwork> network);
  ~SegmentRows();
  void set(const Segment& segment) { segment_ = segment; }
  // The row of a line under a pattern: on[line] is 1 where the line's unit is above its kink; only lines of stages
  // before it are read.
  SegmentRow row(int64_t line, const uint8_t* on);

  // The sign of a line at the point origin + s u + t v; with `less`, another line of its stage or -1, that of the
  // difference of their rows. x: u, v and the origin.
  int side(int64_t line, int64_t less, const uint8_t* on, const std::array<const double*, 3>& x, double s, double t);

 private:
  struct Projection;
  struct Row;
  const Projection& projection(const double* point);
  Row pulled_back(int64_t line, int64_t less, const uint8_t* on, const double* const* inputs, size_t n);

  std::shared_ptr<SegmentNetwork> network_;
  std::unordered_map<const double*, std::unique_ptr<Projection>> projections_;
  Segment segment_{};
};

}  // namespace pylinregion
