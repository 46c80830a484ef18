// csrc/displacement/bindings.cpp -- chains for Python: addresses of tensors that the caller keeps alive, by name.
#include "bindings.h"

#include <pybind11/stl.h>

#include <utility>
#include <vector>

#include "chain.h"

namespace py = pybind11;

namespace pylinregion {
namespace {
using Address = std::uintptr_t;  // Tensor.data_ptr(); 0 is "none"
template <class T> T* at(Address address) { return reinterpret_cast<T*>(address); }

ChainLayer layer(int64_t inputs, int64_t neurons, Address weight, Address exact, Address bias_size, Address row_norm,
                 Address slope, Address column_square, double frobenius, double spectral, double bias_norm,
                 double steepest) {
  return {inputs,
          neurons,
          at<void>(weight),
          at<double>(exact),
          at<double>(bias_size),
          at<double>(row_norm),
          at<double>(slope),
          frobenius,
          spectral,
          bias_norm,
          steepest,
          at<double>(column_square)};
}

class DenseChain {
 public:
  DenseChain(int dtype, std::vector<ChainLayer> layers, int64_t pairs, Address directions, Address direction_size,
             double direction_norm)
      : dtype_(static_cast<DType>(dtype)), layers_(std::move(layers)) {
    chain_ = {static_cast<int64_t>(layers_.size()), layers_.data(), pairs, at<double>(directions),
              at<double>(direction_size),           direction_norm};
  }
  DenseChain(const DenseChain&) = delete;  // its parts point to each other

  DType dtype() const { return dtype_; }
  const Chain& chain() const { return chain_; }

 private:
  DType dtype_;
  std::vector<ChainLayer> layers_;
  Chain chain_;
};

// ChainPoints and what its lists of addresses point to.
class Points {
 public:
  Points(int64_t n, const std::vector<Address>& centres, const std::vector<Address>& norms, Address radius,
         Address vertices, Address base) {
    for (const Address each : centres) centres_.push_back(at<double>(each));
    for (const Address each : norms) norms_.push_back(at<double>(each));
    points_ = {n, centres_.data(), norms_.data(), at<double>(radius), at<void>(vertices), at<double>(base)};
  }
  Points(const Points&) = delete;  // its parts point to each other

  const ChainPoints& points() const { return points_; }

 private:
  std::vector<const double*> centres_, norms_;
  ChainPoints points_;
};

ChainCounts counts(Address changes, int64_t changes_stride, Address ambiguous, Address classes, int64_t classes_stride,
                   Address work, Address nonfinite) {
  return {at<int64_t>(changes), changes_stride,    at<int64_t>(ambiguous), at<int64_t>(classes),
          classes_stride,       at<int64_t>(work), at<uint8_t>(nonfinite)};
}

using NoGil = py::call_guard<py::gil_scoped_release>;
}  // namespace

void bind_displacement(py::module_& m) {
  py::class_<ChainLayer>(m, "ChainLayer")
      .def(py::init(&layer), py::kw_only(), py::arg("inputs"), py::arg("neurons"), py::arg("weight"), py::arg("exact"),
           py::arg("bias_size"), py::arg("row_norm"), py::arg("slope"), py::arg("column_square"), py::arg("frobenius"),
           py::arg("spectral"), py::arg("bias_norm"), py::arg("steepest"));
  py::class_<Points>(m, "ChainPoints")
      .def(py::init<int64_t, const std::vector<Address>&, const std::vector<Address>&, Address, Address, Address>(),
           py::kw_only(), py::arg("n"), py::arg("centres"), py::arg("norms"), py::arg("radius"), py::arg("vertices"),
           py::arg("base"));
  py::class_<ChainCounts>(m, "ChainCounts")
      .def(py::init(&counts), py::kw_only(), py::arg("changes"), py::arg("changes_stride"), py::arg("ambiguous"),
           py::arg("classes"), py::arg("classes_stride"), py::arg("work"), py::arg("nonfinite"));

  py::class_<DenseChain> chains(m, "DenseChain");
  chains.def(py::init<int, std::vector<ChainLayer>, int64_t, Address, Address, double>(), py::kw_only(),
             py::arg("dtype"), py::arg("layers"), py::arg("pairs"), py::arg("directions"), py::arg("direction_size"),
             py::arg("direction_norm"));
  chains.def(
      "count_cpu",
      [](const DenseChain& chain, const Points& points, const ChainCounts& out, int threads) {
        chain_counts_cpu(chain.dtype(), chain.chain(), points.points(), out, threads);
      },
      py::arg("points"), py::arg("counts"), py::arg("threads"), NoGil());
#ifdef PLR_WITH_CUDA
  chains.def(
      "scratch_cuda",
      [](const DenseChain& chain, int64_t points) { return chain_scratch_cuda(chain.dtype(), chain.chain(), points); },
      py::arg("points"));
  chains.def(
      "count_cuda",
      [](const DenseChain& chain, const Points& points, const ChainCounts& out, Address scratch, Address stream) {
        chain_counts_cuda(chain.dtype(), chain.chain(), points.points(), out, at<void>(scratch), at<void>(stream));
      },
      py::arg("points"), py::arg("counts"), py::arg("scratch"), py::arg("stream"), NoGil());
#endif
}

}  // namespace pylinregion
