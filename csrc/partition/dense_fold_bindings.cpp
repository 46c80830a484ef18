// csrc/partition/dense_fold_bindings.cpp -- folds of chains of dense layers for Python: arrays in, systems out.
#include <pybind11/stl.h>

#include <algorithm>
#include <cmath>
#include <memory>

#include "../rounding.h"
#include "binding_parts.h"
#include "bindings.h"
#include "dense_fold.h"
#include "many_slices.h"

namespace pylinregion {
namespace {

// Weights [rows, width], bias, row norms, slopes [rows, 2], norms of the weights (spectral, Frobenius), of the bias.
using LayerArrays =
    std::tuple<Numbers<double>, Numbers<double>, Numbers<double>, Numbers<double>, double, double, double>;

class DenseLayers {
 public:
  explicit DenseLayers(std::vector<LayerArrays> arrays, int64_t lines) : arrays_(std::move(arrays)), lines_(lines) {
    int64_t first = 0, width = -1;
    for (const auto& [weights, bias, row_norms, slopes, norm, frobenius, bias_norm] : arrays_) {
      require_shape("weights", weights, {-1, width});
      const int64_t rows = weights.shape(0);
      require_shape("bias", bias, {rows});
      require_shape("row_norms", row_norms, {rows});
      require_shape("slopes", slopes, {rows, 2});
      width = weights.shape(1);
      DenseLayer layer{rows,          width, weights.data(), bias.data(), row_norms.data(),
                       slopes.data(), norm,  frobenius,      bias_norm,   0,
                       true,          {},    first,          false};
      for (int64_t r = 0; r < rows; ++r) {
        const double* const row = weights.data() + r * width;
        layer.zeros.push_back(static_cast<int32_t>(std::count(row, row + width, 0.0)));
        for (int64_t side = 0; side < 2; ++side) {
          const double slope = slopes.at(r, side);
          layer.steepest = std::max(layer.steepest, std::fabs(slope));
          layer.plain = layer.plain && (slope == 0 || slope == 1);
        }
      }
      layers_.push_back(std::move(layer));
      first += rows, width = rows;
    }
    require(!layers_.empty() && first <= lines, "the layers must have lines of the network");
    layers_.back().last = true;
  }
  const DenseLayer& layer(int64_t number) const { return layers_.at(static_cast<size_t>(number)); }
  int64_t count() const { return static_cast<int64_t>(layers_.size()); }
  int64_t lines() const { return lines_; }

 private:
  const std::vector<LayerArrays> arrays_;  // the layers point into these
  std::vector<DenseLayer> layers_;
  const int64_t lines_;
};

// A fold on its way; see FoldShape. `sizes` [slices, 2]: bounds of the 2-norms of the origins, and of how far any point
// of the slice is from there.
class DenseFold {
 public:
  DenseFold(std::shared_ptr<DenseLayers> chain, int64_t axes, std::optional<Numbers<double>> radii,
            std::optional<Numbers<double>> corners, const Numbers<double>& sizes)
      : chain_(std::move(chain)), radii_(std::move(radii)), corners_(std::move(corners)) {
    require_shape("sizes", sizes, {-1, 2});
    const int64_t slices = sizes.shape(0);
    require(radii_.has_value() != corners_.has_value(), "one of radii and corners must be given");
    require(axes >= 1 && (radii_ || axes == 2), "polygons have two axes");
    if (radii_) require_shape("radii", *radii_, {slices});
    if (corners_) require_shape("corners", *corners_, {slices, -1, 2});
    shape_ = {slices, axes, radii_ ? radii_->data() : nullptr, corners_ ? corners_->data() : nullptr,
              corners_ ? corners_->shape(1) : 0};
    folds_.resize(static_cast<size_t>(slices));
    for (int64_t i = 0; i < slices; ++i) {
      SliceFold& fold = folds_[static_cast<size_t>(i)];
      fold.reach = sizes.at(i, 1), fold.size = (sizes.at(i, 0) + sizes.at(i, 1)) * kInflateNorm;
    }
    bytes_ = (chain_->lines() + 7) / 8;
    on_.assign(static_cast<size_t>(slices * bytes_), 0);
  }

  // The next layer: constants [slices, rows] in; constants of its units, or nothing behind the last, out. Of the first
  // also what its rows take from the axes: images [1 or slices, axes, rows]. Returns how many lines are open.
  int64_t layer(const Numbers<double>& constants, const std::optional<Numbers<double>>& images,
                std::optional<Numbers<double>> units) {
    require(next_ < chain_->count(), "there are no more layers");
    const DenseLayer& layer = chain_->layer(next_);
    require_shape("constants", constants, {shape_.slices, layer.rows});
    require(images.has_value() == (next_ == 0), "images are those of the first layer");
    if (images) {
      require_shape("images", *images, {-1, shape_.axes, layer.rows});
      require(images->shape(0) == 1 || images->shape(0) == shape_.slices, "images must be one, or one for each slice");
    }
    require(units.has_value() != layer.last, "units are asked for in front of the last layer");
    if (units) require_shape("units", *units, {shape_.slices, layer.rows});
    const FoldStage stage{layer,
                          shape_,
                          constants.data(),
                          images ? images->data() : nullptr,
                          images && images->shape(0) == 1,
                          units ? units->mutable_data() : nullptr,
                          on_.data(),
                          bytes_,
                          folds_};
    const py::gil_scoped_release release;
    fold_function()(stage);
    ++next_;
    int64_t open = 0;
    for (const SliceFold& fold : folds_) open += static_cast<int64_t>(fold.lines.size());
    return open;
  }

  // The systems that are left, as Python's SliceSystems has them; and how many slices have loose bounds.
  py::dict systems(bool cells) {
    require(next_ == chain_->count(), "there are layers left");
    find_loose(shape_, cells, folds_);
    const auto slices = static_cast<py::ssize_t>(shape_.slices), stages = static_cast<py::ssize_t>(next_);
    std::vector<int64_t> begin{0}, stage_begin;
    int64_t numbers = 0, loose = 0;
    for (const SliceFold& fold : folds_) {
      const auto n = static_cast<int64_t>(fold.lines.size());
      begin.push_back(begin.back() + n);
      stage_begin.insert(stage_begin.end(), fold.births.begin(), fold.births.end());
      numbers += n * (n + kColumnPadding), loose += fold.loose;
    }
    const auto rows = static_cast<py::ssize_t>(begin.back());
    std::vector<int32_t> line(static_cast<size_t>(rows + kColumnPadding), 0);
    Numbers<double> affine({static_cast<py::ssize_t>(shape_.axes + 1), rows});
    Numbers<double> error(rows), columns(static_cast<py::ssize_t>(numbers));
    write(begin, line.data(), affine.mutable_data(), error.mutable_data(), columns.mutable_data());
    py::dict out;
    out["begin"] = array(std::move(begin), {slices + 1});
    out["stage_begin"] = array(std::move(stage_begin), {slices, stages + 1});
    out["line"] = array(std::move(line), {rows + static_cast<py::ssize_t>(kColumnPadding)});
    out["on"] = array(std::move(on_), {slices, static_cast<py::ssize_t>(bytes_)});
    out["affine"] = affine, out["error"] = error, out["columns"] = columns;
    out["loose"] = loose;
    return out;
  }

 private:
  void write(const std::vector<int64_t>& begin, int32_t* line, double* affine, double* error, double* columns) const {
    const int64_t rows = begin.back(), axes = shape_.axes;
    for (size_t i = 0; i < folds_.size(); ++i) {
      const SliceFold& fold = folds_[i];
      const int64_t n = begin[i + 1] - begin[i], stride = n + kColumnPadding;
      std::fill_n(columns, n * stride, 0.0);
      std::copy(fold.lines.begin(), fold.lines.end(), line + begin[i]);
      std::copy(fold.errors.begin(), fold.errors.end(), error + begin[i]);
      const double* row = fold.taken.data();
      for (size_t stage = 0; stage + 1 < fold.births.size(); ++stage)
        for (int64_t r = fold.births[stage]; r < fold.births[stage + 1]; ++r) {
          for (int64_t k = 0; k < axes; ++k) affine[k * rows + begin[i] + r] = row[k];
          affine[axes * rows + begin[i] + r] = fold.constants[static_cast<size_t>(r)];
          for (int64_t q = 0; q < fold.births[stage]; ++q) columns[q * stride + r] = row[axes + q];
          row += axes + fold.births[stage];
        }
      columns += n * stride;
    }
  }

  const std::shared_ptr<DenseLayers> chain_;
  const std::optional<Numbers<double>> radii_, corners_;
  FoldShape shape_{};
  std::vector<SliceFold> folds_;
  std::vector<uint8_t> on_;
  int64_t bytes_ = 0, next_ = 0;
};

}  // namespace

void bind_dense_fold(py::module_& m) {
  py::class_<DenseLayers, std::shared_ptr<DenseLayers>>(m, "DenseLayers")
      .def(py::init<std::vector<LayerArrays>, int64_t>(), py::arg("layers").noconvert(), py::arg("lines"));
  py::class_<DenseFold>(m, "DenseFold")
      .def(py::init<std::shared_ptr<DenseLayers>, int64_t, std::optional<Numbers<double>>,
                    std::optional<Numbers<double>>, const Numbers<double>&>(),
           py::arg("chain"), py::arg("axes"), py::arg("radii").noconvert(), py::arg("corners").noconvert(),
           py::arg("sizes").noconvert())
      .def("layer", &DenseFold::layer, py::arg("constants").noconvert(), py::arg("images").noconvert() = py::none(),
           py::arg("units").noconvert() = py::none())
      .def("systems", &DenseFold::systems, py::arg("cells"));
}

}  // namespace pylinregion
