// csrc/partition/exact_rows.h -- the signs on slices that float64 cannot decide, decided in integers. One predicate is
// enough: the sign of a row (a, b, c) at the crossing of two rows.
#pragma once
#include <array>
#include <memory>
#include <unordered_map>
#include <vector>

#include "digit_network.h"
#include "groups.h"
#include "system.h"

namespace pylinregion {

// The slice x(s, t) = origin + s u + t v, and the corners of its polygon in (s, t). Of a segment, which has two corners
// on t = 0, x(s) = origin + s (u + v): v is what u, the difference of two inputs, has lost by rounding.
struct ExactSlice {
  int64_t dimensions;
  const double *u, *v, *origin;  // [dimensions]
  const double* corners;         // [n_corners, 2]
  int64_t n_corners;
  const double* borders = nullptr;  // see System
};

class NetworkDigits;  // a network in digits, for any number of slices
class SliceNetwork;   // the network on a slice
std::shared_ptr<NetworkDigits> network_digits(std::vector<ExactStage> stages);

// One thread's access, with a cache: rows are asked for again and again under the same pattern.
class ExactRows {
 public:
  ExactRows(std::shared_ptr<NetworkDigits> network, const ExactSlice& slice, const Groups& groups);
  ExactRows(const ExactRows& other);  // shares the digits, has a cache of its own
  ~ExactRows();

  // The sign of row k at the crossing of rows i and j, which are not parallel. on[line] is 1 where the line's unit is
  // above its kink; only lines of stages before those of i, j and k are read.
  int sign_at(int64_t i, int64_t j, int64_t k, const uint8_t* on);

  // Where rows i and j cross, each coordinate to a few units in the last place; they are not parallel.
  std::array<double, 2> crossing(int64_t i, int64_t j, const uint8_t* on);

 private:
  using Row = std::array<BigInt, 3>;
  struct Cached {
    std::vector<uint8_t> pattern;
    Row row;
  };
  const Row& row(int64_t number, const uint8_t* on);
  // The pattern with lines i and j off, if each is the only one of its unit: other rows are then less by multiples of
  // theirs, which changes no sign at their crossing, and the cells around it ask for the same rows.
  const uint8_t* both_off(int64_t i, int64_t j, int64_t k, const uint8_t* on);
  int64_t read_by(int64_t number) const;  // so many first lines

  std::shared_ptr<SliceNetwork> network_;
  const Groups* groups_;
  std::unordered_map<int64_t, Cached> cache_;
  std::vector<uint8_t> off_;
  Row axis_;
};

}  // namespace pylinregion
