// csrc/partition/groups.h -- lines that compete. A maximum of k values is a group of k consecutive lines, its
// candidates: row i is the value of candidate i, and line i is on where that is the largest (of equal ones the first).
// A cell is cut where two candidates tie; that row, the difference of the two, has a number beyond those of the lines.
#pragma once
#include <cstdint>
#include <utility>
#include <vector>

#include "../kink.h"

namespace pylinregion {

// What the engine asks of groups. Lines are given by their numbers in the network.
struct GroupTable {
  struct Range {
    int64_t first, size;
  };
  int64_t lines, groups;
  const int32_t* of_line;     // [lines]: the group of each; -1: an ordinary line
  const Range* ranges;        // [groups]
  const int64_t* first_pair;  // [groups + 1]

  // The number of row i - row j, lines of one group, i < j.
  PLR_HD int64_t pair(int64_t i, int64_t j) const {
    const int32_t g = of_line[i];
    const int64_t row = i - ranges[g].first;
    return first_pair[g] + row * ranges[g].size - row * (row + 1) / 2 + (j - i - 1);
  }
  // The two lines of a number.
  struct Members {
    int64_t first, second;
  };
  PLR_HD Members members(int64_t pair) const {
    int64_t g = 0;
    for (int64_t end = groups; end - g > 1;) {  // the last group whose pairs do not begin behind it
      const int64_t middle = (g + end) / 2;
      (first_pair[middle] <= pair ? g : end) = middle;
    }
    const int64_t first = ranges[g].first, size = ranges[g].size;
    int64_t rest = pair - first_pair[g], row = 0;
    for (; rest >= size - 1 - row; ++row) rest -= size - 1 - row;
    return {first + row, first + row + 1 + rest};
  }
};

class Groups {
 public:
  // groups: (first line, size) of each, ascending. zero: [lines] a line of an earlier stage that is on where the
  // candidate is positive, and off only where it is 0 on a whole cell; -1: none. same: [lines] the first line of the
  // stage with the same weights. multiples: [lines] the first line of the stage with a multiple of a line's row, or
  // null. central: all rows are 0 at s = t = 0, whatever the pattern.
  Groups(int64_t lines, const std::vector<std::pair<int64_t, int64_t>>& groups, const int64_t* zero,
         const int64_t* same, const int64_t* multiples, bool central);

  int64_t lines() const { return lines_; }
  GroupTable table() const {
    return {lines_, static_cast<int64_t>(ranges_.size()), of_line_.data(), ranges_.data(), first_pair_.data()};
  }
  const int64_t* zero() const { return zero_; }

  // Whether row k is 0 where rows i and j are, whatever the pattern: what the numbers alone can tell.
  bool follows(int64_t i, int64_t j, int64_t k) const;

 private:
  bool same_row(int64_t i, int64_t j) const;
  bool third_of_three(int64_t i, int64_t j, int64_t k) const;  // f - g where f - h and g - h are 0
  bool both_zero(int64_t i, int64_t j, int64_t k) const;       // f - g where f and g are rectified by i and j
  std::pair<int64_t, int64_t> same_members(int64_t pair) const;

  int64_t lines_;
  std::vector<GroupTable::Range> ranges_;
  std::vector<int64_t> first_pair_;  // [groups + 1]
  std::vector<int32_t> of_line_;
  const int64_t *zero_, *same_, *multiples_;
  bool central_;
};

}  // namespace pylinregion
