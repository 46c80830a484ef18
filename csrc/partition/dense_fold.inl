// csrc/partition/dense_fold.inl -- a layer of a fold over many slices, compiled once for each instruction set. The
// includer defines PLR_FOLD_STAGE (the function's name). docs/exactness.md, 5.6.
#include <algorithm>
#include <cmath>

#include "dense_fold.h"
#include "fold_bounds.h"
#include "lanes.h"
// Behind the lanes that it is made of:
#include "../displacement/panel.inl"

namespace pylinregion {
namespace {

template <class T> auto& at(T& values, int64_t i) { return values[static_cast<size_t>(i)]; }
template <class T> int64_t count(const T& values) { return static_cast<int64_t>(values.size()); }

// Where a row is on a slice.
constexpr uint8_t kIsOpen = 0, kIsOn = 1, kIsOff = 2;

// A slice's polygon, or star of axes.
class Polygon {
 public:
  Polygon(const FoldShape& shape, int64_t slice)
      : axes_(shape.axes),
        radius_(shape.radii ? shape.radii[slice] : 0),
        corners_(shape.radii ? nullptr : shape.corners + 2 * slice * shape.n_corners),
        n_corners_(shape.n_corners) {}

  // At least the largest sum of |s_k| size_k.
  double farthest(const double* sizes) const {
    double most = 0;
    if (!corners_) {
      for (int64_t k = 0; k < axes_; ++k) most = std::max(most, std::fabs(sizes[k]));
      return most * radius_ * kInflate;
    }
    for (int64_t i = 0; i < n_corners_; ++i)
      most = std::max(most, std::fabs(corners_[2 * i] * sizes[0]) + std::fabs(corners_[2 * i + 1] * sizes[1]));
    return most * kInflate;
  }
  // At least |s_k|.
  double extent(int64_t k) const {
    double most = radius_;
    for (int64_t i = 0; corners_ && i < n_corners_; ++i) most = std::max(most, std::fabs(corners_[2 * i + k]));
    return most;
  }
  // The least and the largest of an affine function, as computed.
  void range(const double* slopes, double constant, double& low, double& high) const {
    if (!corners_) {
      double most = 0;
      for (int64_t k = 0; k < axes_; ++k) most = std::max(most, std::fabs(slopes[k]));
      low = constant - radius_ * most, high = constant + radius_ * most;
      return;
    }
    low = INFINITY, high = -INFINITY;
    for (int64_t i = 0; i < n_corners_; ++i) {
      const double value = corners_[2 * i] * slopes[0] + corners_[2 * i + 1] * slopes[1] + constant;
      low = std::min(low, value), high = std::max(high, value);
    }
  }

 private:
  const int64_t axes_;
  const double radius_, *const corners_;
  const int64_t n_corners_;
};

class LayerFolder {
 public:
  explicit LayerFolder(const FoldStage& stage)
      : stage_(stage), layer_(stage.layer), axes_(stage.shape.axes), form_(padded(axes_ + 1)) {
    const size_t rows = static_cast<size_t>(layer_.rows);
    side_.resize(rows), needed_.resize(rows + 1), slope_.resize(rows + 1);
    if (stage.images && stage.shared) transpose(stage.images);
  }

  void fold(int64_t slice) {
    SliceFold& state = at(stage_.folds, slice);
    const Polygon polygon(stage_.shape, slice);
    const double* const z = stage_.constants + slice * layer_.rows;
    if (stage_.images && !stage_.shared) transpose(stage_.images + slice * axes_ * layer_.rows);
    before_ = count(state.lines);
    vectors_ = axes_ + before_;
    off_ = rows_off(state.error, state.size, gamma(layer_.width + 9));
    settle_by_norms(state, z);
    multiply_needed(state);
    if (state.births.empty()) state.births.push_back(0);
    settle(state, polygon, z);
    state.births.push_back(count(state.lines));
    write_sides(slice);
    const double row_error =
        (layer_.norm * state.error + gamma(layer_.width + 9) * (layer_.frobenius * state.size + layer_.bias_norm)) *
            kInflateNorm +
        kNormUnderflow;
    state.loose |= row_error > kLoose * norm_of(z, layer_.rows);
    if (!layer_.last) pass_on(state, polygon, z, row_error, stage_.units + slice * layer_.rows);
  }

 private:
  static constexpr double kLoose = 1e-7;  // of a layer's values, that it is off by: this decides nothing

  void transpose(const double* images) {
    out_stride_ = padded(axes_);
    out_.assign(static_cast<size_t>(layer_.rows * out_stride_), 0.0);
    for (int64_t k = 0; k < axes_; ++k)
      for (int64_t r = 0; r < layer_.rows; ++r) at(out_, r * out_stride_ + k) = images[k * layer_.rows + r];
  }

  // Rows that are further from 0 than anything on the slice can move them, and those that have to be looked at.
  void settle_by_norms(const SliceFold& state, const double* z) {
    const double by_norm = (state.reach + off_.by_norm) * kInflateNorm, by_bias = off_.by_bias * kInflateNorm;
    const double *const norms = layer_.row_norms, *const bias = layer_.bias, *const slopes = layer_.slopes;
    uint8_t* const side = side_.data();
    int32_t* const needed = needed_.data();
    double* const slope = slope_.data();
    int64_t n = 0;
    for (int64_t r = 0; r < layer_.rows; ++r) {
      const double far = norms[r] * by_norm + std::fabs(bias[r]) * by_bias + kRowOnSlice;
      const bool on = z[r] > far, off = z[r] < -far;
      side[r] = static_cast<uint8_t>(on * kIsOn + off * kIsOff);
      slope[r] = slopes[2 * r + on];
      needed[n] = static_cast<int32_t>(r);
      n += (!on & !off) | (!layer_.last & (slope[r] != 0));
    }
    n_needed_ = n;
  }

  // What the needed rows take from the axes and from open lines.
  void multiply_needed(const SliceFold& state) {
    if (stage_.images) return;  // that is known
    out_stride_ = state.stride;
    const int64_t rows = (n_needed_ + kTileRows - 1) / kTileRows * kTileRows, m = count(state.units);
    if (count(out_) < rows * out_stride_) out_.resize(static_cast<size_t>(rows * out_stride_));
    if (m == 0) return std::fill(out_.begin(), out_.begin() + rows * out_stride_, 0.0);
    const Panel<double> panel{state.panel.data(), state.stride, state.units.data(), m};
    for (int64_t first = 0; first < n_needed_; first += kTileRows) {
      const double* row[kTileRows];
      for (int64_t i = 0; i < kTileRows; ++i)
        row[i] = layer_.weights + needed_[static_cast<size_t>(std::min(first + i, n_needed_ - 1))] * layer_.width;
      multiply<double>(row, panel, state.stride / Lanes<double>::count, out_.data() + first * out_stride_, out_stride_);
    }
  }
  const double* coefficients(int64_t i) const {
    return out_.data() + (stage_.images ? needed_[static_cast<size_t>(i)] : i) * out_stride_;
  }

  // The rows that norms left, by what they can be on the slice.
  void settle(SliceFold& state, const Polygon& polygon, const double* z) {
    weigh(state, polygon);
    born_.clear();
    for (int64_t i = 0; i < n_needed_; ++i) {
      const int64_t r = needed_[static_cast<size_t>(i)];
      if (side_[static_cast<size_t>(r)] != kIsOpen) continue;
      const double* const row = coefficients(i);
      const double off = off_.off(layer_.row_norms[r], std::fabs(layer_.bias[r])) * kInflateNorm + kRowOnSlice;
      const double size = layer_.row_norms[r] * state.size + std::fabs(layer_.bias[r]);
      const double rounded = off + rounding_ * size, reach = (rounded + reach_of(row)) * kInflateNorm;
      if (z[r] > reach || z[r] < -reach || vanishes(state, r)) {
        settle_row(r, z[r] > reach);
        continue;
      }
      const double slack = (rounded + relax(state, row, z[r])) * kInflateNorm + kRowOnSlice;
      double low, high;
      polygon.range(relaxed_.data(), at(relaxed_, axes_), low, high);
      low -= slack, high += slack;
      if (low > 0 || high < 0) {
        settle_row(r, low > 0);
        continue;
      }
      slope_[static_cast<size_t>(r)] = layer_.slopes[2 * r];
      born_.push_back(static_cast<int32_t>(r));
      open(state, polygon, low, high, slack);
      state.lines.push_back(static_cast<int32_t>(layer_.first_line + r));
      state.constants.push_back(z[r]);
      state.errors.push_back(off);
      state.taken.insert(state.taken.end(), row, row + vectors_);
    }
  }
  void settle_row(int64_t r, bool on) {
    side_[static_cast<size_t>(r)] = on ? kIsOn : kIsOff;
    slope_[static_cast<size_t>(r)] = layer_.slopes[2 * r + on];
  }

  // What the numbers of a row are worth: of axes, and of columns as they are and once relaxed.
  void weigh(const SliceFold& state, const Polygon& polygon) {
    rounding_ = static_cast<double>(before_ + kFoldOperations) * kUnit * kInflate;
    relaxed_.resize(static_cast<size_t>(form_));
    for (Doubles* each : {&axis_weight_, &high_weight_, &radius_weight_})
      each->assign(static_cast<size_t>(out_stride_), 0.0);
    for (int64_t k = 0; k < axes_; ++k) at(axis_weight_, k) = polygon.extent(k);
    for (int64_t q = 0; q < before_; ++q) {
      at(high_weight_, axes_ + q) = at(state.high, q);
      at(radius_weight_, axes_ + q) = at(state.radius, q) + rounding_ * at(state.reaches, q);
    }
  }
  // At least how far a row goes from its constant anywhere on the slice, but for rounding.
  double reach_of(const double* row) const {
    V most = set(0), sum = set(0);
    for (int64_t v = 0; v < out_stride_; v += kLanes) {
      const V sizes = abs(load(row + v)), of_axes = sizes * load(axis_weight_.data() + v);
      stage_.shape.radii ? most = max(most, of_axes) : most += of_axes;
      sum = multiply_add(sizes, load(high_weight_.data() + v), sum);
    }
    double axes = 0, columns = 0;
    for (int lane = 0; lane < kLanes; ++lane) {
      axes = stage_.shape.radii ? std::max(axes, most[lane]) : axes + most[lane];
      columns += sum[lane];
    }
    return axes + columns;
  }
  // An affine function near the row; returns how near, but for rounding.
  double relax(const SliceFold& state, const double* row, double constant) {
    std::fill(relaxed_.begin(), relaxed_.end(), 0.0);
    std::copy_n(row, axes_, relaxed_.begin());
    at(relaxed_, axes_) = constant;
    int64_t v = 0;
    for (; v + 4 * kLanes <= form_; v += 4 * kLanes) add_forms<4>(state, row + axes_, v);
    for (; v < form_; v += kLanes) add_forms<1>(state, row + axes_, v);
    V radius = set(0);
    for (v = 0; v < out_stride_; v += kLanes)
      radius = multiply_add(abs(load(row + v)), load(radius_weight_.data() + v), radius);
    double sum = 0;
    for (int lane = 0; lane < kLanes; ++lane) sum += radius[lane];
    return sum;
  }
  template <int kWide> void add_forms(const SliceFold& state, const double* columns, int64_t from) {
    V sum[kWide];
    for (int w = 0; w < kWide; ++w) sum[w] = load(relaxed_.data() + from + w * kLanes);
    const double* form = state.forms.data() + from;
    for (int64_t q = 0; q < before_; ++q, form += form_)
      for (int w = 0; w < kWide; ++w) sum[w] = multiply_add(set(columns[q]), load(form + w * kLanes), sum[w]);
    for (int w = 0; w < kWide; ++w) store(relaxed_.data() + from + w * kLanes, sum[w]);
  }
  // A row without bias whose weights read nothing but units that are 0 all over the slice is 0 as well, so off.
  bool vanishes(const SliceFold& state, int64_t r) const {
    if (layer_.bias[r] != 0) return false;
    if ((stage_.images ? layer_.width : count(state.units)) > layer_.zeros[static_cast<size_t>(r)]) return false;
    const double* const weights = layer_.weights + r * layer_.width;
    return std::all_of(state.units.begin(), state.units.end(), [&](int32_t unit) { return weights[unit] == 0; });
  }
  // What an open line contributes to later rows.
  void open(SliceFold& state, const Polygon& polygon, double low, double high, double slack) {
    const Relaxed line = relaxed(std::min(low, 0.0), std::max(high, 0.0), slack);
    for (int64_t k = 0; k <= axes_; ++k) at(relaxed_, k) *= line.slope;
    at(relaxed_, axes_) += line.middle;
    const double size = polygon.farthest(relaxed_.data()) + std::fabs(at(relaxed_, axes_));
    const double radius = widened(line.radius, size);
    state.forms.insert(state.forms.end(), relaxed_.begin(), relaxed_.end());
    state.radius.push_back(radius);
    state.reaches.push_back((size + radius) * kInflateNorm);
    state.high.push_back(std::max(high, 0.0) * kInflateNorm);
  }

  void write_sides(int64_t slice) {
    uint8_t* const bits = stage_.on + slice * stage_.bytes;
    for (int64_t r = 0; r < layer_.rows; ++r) {
      const int64_t line = layer_.first_line + r;
      bits[line / 8] = static_cast<uint8_t>(bits[line / 8] | (side_[static_cast<size_t>(r)] == kIsOn) << line % 8);
    }
  }

  // The units: those that are more than their constant make the next panel.
  void pass_on(SliceFold& state, const Polygon& polygon, const double* z, double row_error, double* units) {
    const int64_t born = count(born_), next = vectors_ + born, stride = padded(next);
    for (int64_t r = 0; r < layer_.rows; ++r) units[r] = at(slope_, r) * z[r];
    panel_.resize(static_cast<size_t>(n_needed_ * stride));
    squares_.assign(static_cast<size_t>(stride), 0.0);
    state.units.clear();
    int64_t m = 0, column = vectors_;
    bool rounded = !layer_.plain;
    for (int64_t i = 0; i < n_needed_; ++i) {
      const int64_t r = needed_[static_cast<size_t>(i)];
      const bool is_open = side_[static_cast<size_t>(r)] == kIsOpen;
      const double slope = at(slope_, r);
      if (slope == 0 && !is_open) continue;
      double* const to = panel_.data() + m++ * stride;
      const double* const from = coefficients(i);
      for (int64_t v = 0; v < vectors_; ++v) to[v] = slope * from[v];
      std::fill(to + vectors_, to + stride, 0.0);
      if (is_open) to[column++] = layer_.slopes[2 * r + 1] - layer_.slopes[2 * r];
      for (int64_t v = 0; v < stride; v += kLanes) {
        const V numbers = load(to + v);
        store(squares_.data() + v, multiply_add(numbers, numbers, load(squares_.data() + v)));
      }
      state.units.push_back(static_cast<int32_t>(r));
    }
    state.panel.assign(panel_.begin(), panel_.begin() + m * stride);
    state.stride = stride;
    for (double& each : squares_) each = std::sqrt(each) * kInflateNorm + kNormUnderflow;
    double reach = polygon.farthest(squares_.data());
    for (int64_t q = 0; q < before_ + born; ++q) reach += at(state.high, q) * at(squares_, axes_ + q);
    state.reach = reach * kInflateNorm;
    state.size = (state.reach + norm_of(units, layer_.rows)) * kInflateNorm;
    state.error = (layer_.steepest * row_error + (rounded ? 8 * kUnit * state.size : 0)) * kInflateNorm;
  }
  static double norm_of(const double* numbers, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += numbers[i] * numbers[i];
    return std::sqrt(sum) * kInflateNorm + kNormUnderflow;
  }

  const FoldStage& stage_;
  const DenseLayer& layer_;
  const int64_t axes_, form_;
  int64_t before_ = 0, vectors_ = 0, n_needed_ = 0, out_stride_ = 0;
  double rounding_ = 0;  // of sums over columns
  RowsOff off_{};
  std::vector<uint8_t> side_;                          // [rows]
  std::vector<int32_t> needed_;                        // rows
  Doubles slope_;                                      // [rows]: of the piece that is settled, or the lower one
  Doubles out_;                                        // [needed rows, stride], of the first layer [rows, stride]
  Doubles axis_weight_, high_weight_, radius_weight_;  // [stride]
  Doubles relaxed_, panel_, squares_;
  std::vector<int32_t> born_;
};

}  // namespace

void PLR_FOLD_STAGE(const FoldStage& stage) {
  LayerFolder folder(stage);
  for (int64_t slice = 0; slice < stage.shape.slices; ++slice) folder.fold(slice);
}

}  // namespace pylinregion
