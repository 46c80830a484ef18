// csrc/displacement/bindings.cpp -- chains for Python: addresses of tensors that the caller keeps alive.
#include "bindings.h"

#include <pybind11/stl.h>

#include <tuple>
#include <vector>

#include "chain.h"

namespace py = pybind11;

namespace pylinregion {
namespace {
using Address = std::uintptr_t;
template <class T> T* at(Address address) { return reinterpret_cast<T*>(address); }

using LayerTuple =
    std::tuple<int64_t, int64_t, Address, Address, Address, Address, Address, double, double, double, double, Address>;

class DenseChain {
 public:
  DenseChain(int dtype, const std::vector<LayerTuple>& layers, int64_t pairs, Address directions,
             Address direction_size, double direction_norm)
      : dtype_(static_cast<DType>(dtype)) {
    for (const auto& [inputs, neurons, weight, exact, bias_size, row_norm, slope, frobenius, spectral, bias_norm,
                      steepest, column_square] : layers)
      layers_.push_back({inputs, neurons, at<void>(weight), at<double>(exact), at<double>(bias_size),
                         at<double>(row_norm), at<double>(slope), frobenius, spectral, bias_norm, steepest,
                         at<double>(column_square)});
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

// The CPU and the CUDA function take the same arguments but for the last ones.
template <class... Last, class Run, class... Names>
void def_count(py::class_<DenseChain>& chains, const char* name, Run run, Names... last) {
  chains.def(
      name,
      [run](const DenseChain& chain, int64_t points, const std::vector<Address>& centre,
            const std::vector<Address>& norm, Address radius, Address vertices, Address base, Address changes,
            int64_t changes_stride, Address ambiguous, Address classes, int64_t classes_stride, Address work,
            Address nonfinite, Last... executor) {
        std::vector<const double*> centres, norms;
        for (const Address each : centre) centres.push_back(at<double>(each));
        for (const Address each : norm) norms.push_back(at<double>(each));
        const ChainPoints at_points{
            points, centres.data(), norms.data(), at<double>(radius), at<void>(vertices), at<double>(base)};
        const ChainCounts out{at<int64_t>(changes), changes_stride,    at<int64_t>(ambiguous), at<int64_t>(classes),
                              classes_stride,       at<int64_t>(work), at<uint8_t>(nonfinite)};
        const py::gil_scoped_release release;
        run(chain.dtype(), chain.chain(), at_points, out, executor...);
      },
      py::arg("points"), py::arg("centre"), py::arg("norm"), py::arg("radius"), py::arg("vertices"), py::arg("base"),
      py::arg("changes"), py::arg("changes_stride"), py::arg("ambiguous"), py::arg("classes"),
      py::arg("classes_stride"), py::arg("work"), py::arg("nonfinite"), py::arg(last)...);
}
}  // namespace

void bind_displacement(py::module_& m) {
  py::class_<DenseChain> chains(m, "DenseChain");
  chains.def(py::init<int, const std::vector<LayerTuple>&, int64_t, Address, Address, double>(), py::arg("dtype"),
             py::arg("layers"), py::arg("pairs"), py::arg("directions"), py::arg("direction_size"),
             py::arg("direction_norm"));
  def_count<int>(chains, "count_cpu", &chain_counts_cpu, "threads");
#ifdef PLR_WITH_CUDA
  chains.def(
      "scratch_cuda",
      [](const DenseChain& chain, int64_t points) { return chain_scratch_cuda(chain.dtype(), chain.chain(), points); },
      py::arg("points"));
  def_count<Address, Address>(
      chains, "count_cuda",
      [](DType dtype, const Chain& chain, const ChainPoints& points, const ChainCounts& out, Address scratch,
         Address stream) { chain_counts_cuda(dtype, chain, points, out, at<void>(scratch), at<void>(stream)); },
      "scratch", "stream");
#endif
}

}  // namespace pylinregion
