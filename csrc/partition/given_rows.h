// csrc/partition/given_rows.h -- what is left of folds as Python has it (exact/slice_systems.py), checked.
#pragma once
#include <algorithm>
#include <string>

#include "binding_parts.h"
#include "many_slices.h"

namespace pylinregion {
namespace {

template <class T> Numbers<T> taken(const py::dict& arrays, const char* name) {
  require(arrays.contains(name), std::string(name) + " is missing");
  const py::object given = arrays[name];
  require(py::isinstance<Numbers<T>>(given), std::string(name) + " must be a row-major array of its dtype");
  return py::cast<Numbers<T>>(given);
}

// The rows of some slices, or points, one behind the other.
class GivenRows {
 public:
  GivenRows(const py::dict& arrays, int64_t lines)
      : begin(taken<int64_t>(arrays, "begin")),
        stage_begin(taken<int64_t>(arrays, "stage_begin")),
        line(taken<int32_t>(arrays, "line")),
        on(taken<uint8_t>(arrays, "on")),
        error(taken<double>(arrays, "error")),
        columns(taken<double>(arrays, "columns")) {
    require_shape("begin", begin, {-1});
    count = begin.shape(0) - 1;
    require(count >= 0 && begin.at(0) == 0, "begin must start at 0");
    require_shape("stage_begin", stage_begin, {count, -1});
    stages = stage_begin.shape(1) - 1;
    require(stages >= 0, "stage_begin must have an end");
    int64_t numbers = 0;
    for (py::ssize_t i = 0; i < count; ++i) {
      const int64_t own = begin.at(i + 1) - begin.at(i);
      require(own >= 0 && stage_begin.at(i, 0) == 0 && stage_begin.at(i, stages) == own,
              "stage_begin must end with the rows of its slice");
      for (int64_t l = 0; l < stages; ++l)
        require(stage_begin.at(i, l) <= stage_begin.at(i, l + 1), "stage_begin must ascend");
      numbers += own * (own + kColumnPadding), most_rows = std::max(most_rows, own);
    }
    rows = begin.at(count);
    require_shape("line", line, {rows + kColumnPadding});
    for (int64_t row = 0; row < rows; ++row)
      require(0 <= line.at(row) && line.at(row) < lines, "line must have numbers of lines");
    require_shape("on", on, {count, (lines + 7) / 8});
    require_shape("error", error, {rows});
    require_shape("columns", columns, {numbers});
  }

  const Numbers<int64_t> begin, stage_begin;
  const Numbers<int32_t> line;
  const Numbers<uint8_t> on;
  const Numbers<double> error, columns;
  int64_t count = 0, stages = 0, rows = 0, most_rows = 0;
};

}  // namespace
}  // namespace pylinregion
