// csrc/partition/binding_parts.h -- what the bindings of the slice engine and of tracing share.
#pragma once
#include <pybind11/numpy.h>

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "digit_network.h"

namespace pylinregion {
namespace {
namespace py = pybind11;

// An array of Python's, row-major and of that dtype. Another one is refused, for nothing is converted on the way: all
// arguments are noconvert().
template <class T> using Numbers = py::array_t<T, py::array::c_style>;

// Throws what Python sees as a ValueError, unless an array has a shape; -1: any size.
inline void require_shape(const std::string& name, const py::array& array, const std::vector<py::ssize_t>& shape) {
  const auto text = [](const auto* sizes, size_t count) {
    std::string sum;
    for (size_t k = 0; k < count; ++k)
      sum += (k ? ", " : "") + (sizes[k] < 0 ? std::string("any") : std::to_string(sizes[k]));
    return "[" + sum + "]";
  };
  bool fits = array.ndim() == static_cast<py::ssize_t>(shape.size());
  for (size_t k = 0; fits && k < shape.size(); ++k)
    fits = shape[k] < 0 || array.shape(static_cast<py::ssize_t>(k)) == shape[k];
  if (!fits)
    throw std::invalid_argument(name + " must be " + text(shape.data(), shape.size()) + ", got " +
                                text(array.shape(), static_cast<size_t>(array.ndim())));
}
inline void require(bool fits, const std::string& what) {
  if (!fits) throw std::invalid_argument(what);
}

// An array of numbers that owns a vector of them, or of plain structures that are made of them.
template <class T, class Element, class... Rest>
py::array_t<T> array(std::vector<Element, Rest...>&& values, std::vector<py::ssize_t> shape) {
  using Owner = std::vector<Element, Rest...>;
  auto* owner = new Owner(std::move(values));
  const py::capsule free(owner, [](void* p) { delete static_cast<Owner*>(p); });
  return py::array_t<T>(std::move(shape), reinterpret_cast<T*>(owner->data()), free);
}
template <class T, class... Rest>
py::array_t<T> array(std::vector<T, Rest...>&& values, std::vector<py::ssize_t> shape) {
  return array<T, T, Rest...>(std::move(values), std::move(shape));
}

// A map as pylinregion/lowering/linear_maps.py gives it: its kind, its numbers, and what that kind needs besides.
class MapArrays {
 public:
  MapArrays(const py::tuple& told, const std::string& name) {
    const std::string kind = py::cast<std::string>(told[0]);
    numbers_ = py::cast<Numbers<double>>(told[1]);
    if (kind == "dense") {
      require_shape(name, numbers_, {-1, -1});
      const auto places = py::cast<int64_t>(told[2]);
      require(places >= 1, name + " must have places");
      map_ = LinearMap::of_matrix(numbers_.data(), numbers_.shape(0), numbers_.shape(1));
      map_.dense.places = places;
      map_.rows *= places, map_.width *= places;
    } else if (kind == "terms") {
      terms(py::cast<Numbers<int64_t>>(told[2]), py::cast<int64_t>(told[3]), py::cast<int64_t>(told[4]), name);
    } else {
      require(kind == "convolution", name + " must be dense, terms or convolution");
      convolution(told, name);
    }
  }
  const LinearMap& map() const { return map_; }

 private:
  void terms(Numbers<int64_t> place, int64_t width, int64_t products, const std::string& name) {
    place_ = std::move(place);
    require_shape(name, numbers_, {-1, -1});
    require_shape(name + ".place", place_, {numbers_.shape(0), numbers_.shape(1)});
    for (py::ssize_t i = 0; i < place_.size(); ++i)
      require(0 <= place_.data()[i] && place_.data()[i] < width, name + ".place must be of the width");
    map_.kind = LinearMap::Kind::terms;
    map_.rows = numbers_.shape(0), map_.width = width;
    map_.few = {place_.data(), numbers_.shape(1)};
    map_.products = products;
    whole();
  }
  void convolution(const py::tuple& told, const std::string& name) {
    using Sizes = std::vector<int64_t>;
    const auto source = py::cast<Sizes>(told[2]), target = py::cast<Sizes>(told[3]), stride = py::cast<Sizes>(told[4]),
               padding = py::cast<Sizes>(told[5]), dilation = py::cast<Sizes>(told[6]);
    const size_t dims = stride.size();
    const auto n = static_cast<py::ssize_t>(dims);
    require(1 <= dims && dims <= 3 && numbers_.ndim() == n + 2 && source.size() == dims + 1 &&
                target.size() == dims + 1 && padding.size() == dims && dilation.size() == dims,
            name + " must have 1 to 3 dimensions");
    ConvolutionMap& to = map_.convolution;
    to.groups = py::cast<int64_t>(told[7]);
    to.transposed = py::cast<bool>(told[8]);
    to.in_channels = source[0], to.out_channels = target[0];
    require(to.groups >= 1 && to.in_channels % to.groups == 0 && to.out_channels % to.groups == 0 &&
                numbers_.shape(0) == to.out_channels && numbers_.shape(1) == to.in_channels / to.groups,
            name + " must have weights for its channels");
    for (size_t d = 0; d < 3; ++d) {
      const bool is = d + dims >= 3;
      const size_t k = is ? d + dims - 3 : 0;
      to.source[d] = is ? source[k + 1] : 1, to.target[d] = is ? target[k + 1] : 1;
      to.kernel[d] = is ? numbers_.shape(static_cast<py::ssize_t>(k + 2)) : 1;
      to.stride[d] = is ? stride[k] : 1, to.padding[d] = is ? padding[k] : 0, to.dilation[d] = is ? dilation[k] : 1;
      require(to.source[d] >= 1 && to.target[d] >= 1 && to.stride[d] >= 1 && to.dilation[d] >= 1,
              name + " must have sizes of at least 1");
    }
    map_.kind = LinearMap::Kind::convolution;
    map_.rows = map_.convolution.target[0] * to.target[1] * to.target[2] * to.out_channels;
    map_.width = to.source[0] * to.source[1] * to.source[2] * to.in_channels;
    map_.products = std::max(to.in_channels, to.out_channels) / to.groups * to.kernel[0] * to.kernel[1] * to.kernel[2];
    if (to.transposed) std::swap(map_.rows, map_.width);
    whole();
  }
  void whole() {
    map_.numbers = numbers_.data();
    map_.count = numbers_.size();
  }

  Numbers<double> numbers_;
  Numbers<int64_t> place_;
  LinearMap map_;
};

// Blocks by source, bias, line_begin, kinks, slopes, intercepts, denominator: see ExactStage.
using StageArrays = std::tuple<std::vector<std::pair<int64_t, py::tuple>>, Numbers<double>, Numbers<int64_t>,
                               Numbers<double>, Numbers<double>, Numbers<double>, double>;

// A network's stages as Python has them: the arrays, which are kept alive, and what points into them.
class ExactStages {
 public:
  ExactStages(std::vector<StageArrays> arrays, int64_t dimensions) : arrays_(std::move(arrays)) {
    int64_t lines = 0;
    for (size_t number = 0; number < arrays_.size(); ++number) {
      const auto& [blocks, bias, line_begin, kinks, slopes, intercepts, denominator] = arrays_[number];
      const std::string name = "stages[" + std::to_string(number) + "].";
      require_shape(name + "bias", bias, {-1});
      const int64_t rows = bias.shape(0);
      require_shape(name + "line_begin", line_begin, {rows + 1});
      require(line_begin.at(0) == lines, name + "line_begin must go on from the stage before");
      for (int64_t row = 0; row < rows; ++row)
        require(line_begin.at(row) <= line_begin.at(row + 1), name + "line_begin must ascend");
      const int64_t own = line_begin.at(rows) - lines;
      require_shape(name + "kinks", kinks, {own});
      require_shape(name + "slopes", slopes, {own + rows});
      require_shape(name + "intercepts", intercepts, {own + rows});
      ExactStage stage{rows,       {}, bias.data(), line_begin.data(), kinks.data(), slopes.data(), intercepts.data(),
                       denominator};
      for (const auto& [source, told] : blocks) {
        require(source >= -1 && source < static_cast<int64_t>(number), name + "blocks must be of stages before it");
        const int64_t width = source < 0 ? dimensions : stages_[static_cast<size_t>(source)].rows;
        const std::string block = name + "blocks[" + std::to_string(source) + "]";
        const LinearMap& map = maps_.emplace_back(told, block).map();
        require(map.rows == rows && map.width == width,
                block + " must be of " + std::to_string(rows) + " rows and width " + std::to_string(width) + ", got " +
                    std::to_string(map.rows) + " and " + std::to_string(map.width));
        stage.blocks.push_back({source, map});
      }
      stages_.push_back(std::move(stage));
      lines += own;
    }
    lines_ = lines;
  }
  const std::vector<ExactStage>& stages() const { return stages_; }
  int64_t lines() const { return lines_; }

 private:
  std::vector<StageArrays> arrays_;
  std::deque<MapArrays> maps_;
  std::vector<ExactStage> stages_;
  int64_t lines_ = 0;
};

// Runs `work` on a thread of its own, without the GIL. Meanwhile signals are heard and report(done) is
// called, about twenty times a second; an interrupt or an error of `report` sets `stop`, and is raised after the work.
template <class Work> void run_reporting(const py::object& report, const std::atomic<int64_t>& done,
                                         std::atomic<bool>& stop, const Work& work) {
  std::exception_ptr error;
  std::mutex mutex;
  std::condition_variable ready;
  bool ended = false, interrupted = false;
  std::thread worker([&] {
    try {
      work();
    } catch (...) {
      error = std::current_exception();
    }
    const std::lock_guard<std::mutex> lock(mutex);
    ended = true;
    ready.notify_one();
  });
  const auto told = [&] {
    if (report.is_none()) return true;
    PyObject* answer = PyObject_CallFunction(report.ptr(), "L", static_cast<long long>(done.load()));
    Py_XDECREF(answer);
    return answer != nullptr;
  };
  while (true) {
    {
      const py::gil_scoped_release release;
      std::unique_lock<std::mutex> lock(mutex);
      ready.wait_for(lock, std::chrono::milliseconds(50), [&] { return ended; });
      if (ended) break;
    }
    if (!interrupted && (PyErr_CheckSignals() != 0 || !told())) interrupted = stop = true;
  }
  worker.join();
  if (interrupted) throw py::error_already_set();
  if (error) std::rethrow_exception(error);
}

}  // namespace
}  // namespace pylinregion
