// csrc/bindings.cpp -- names and addresses only: no arithmetic, no checks, no torch or CUDA header.
#include "partition/bindings.h"

#include <pybind11/pybind11.h>

#include "displacement/bindings.h"
#include "distinct_patterns.h"
#include "label_changes.h"
#include "linear.h"
#include "sign_changes.h"
#include "simd.h"

namespace py = pybind11;
using namespace pylinregion;
using Address = std::uintptr_t;  // Tensor.data_ptr(); the caller keeps the tensor alive; 0 is "none"

namespace {

template <class T> T* at(Address address) { return reinterpret_cast<T*>(address); }

#ifdef PLR_WITH_CUDA
constexpr bool kCuda = true;
#else
constexpr bool kCuda = false;
#endif

using NoGil = py::call_guard<py::gil_scoped_release>;  // safe: the arguments are plain numbers

// The CPU and the CUDA function of an operation take the same arguments but the last: threads or stream.
template <class Last, class Run> void def_sign_changes(py::module_& m, const char* name, const char* last, Run run) {
  m.def(
      name,
      [run](int dtype, Address dense, Address centre, Address directions, Address radius, int64_t points,
            int64_t vertices, int64_t neurons, int activation, int n_breakpoints, double breakpoint0,
            double breakpoint1, double slope, double low, double high, Address out, Address patterns, int64_t row_words,
            Address changes, int64_t changes_stride, Address nonfinite, Last executor) {
        const Preactivations z{at<const void>(dense),
                               at<const void>(centre),
                               at<const void>(directions),
                               at<const double>(radius),
                               points,
                               vertices,
                               neurons};
        const Kink kink{
            static_cast<Activation>(activation), n_breakpoints, {breakpoint0, breakpoint1}, slope, low, high};
        const SignChanges result{at<void>(out),        at<uint64_t>(patterns), row_words,
                                 at<int64_t>(changes), changes_stride,         at<uint8_t>(nonfinite)};
        run(static_cast<DType>(dtype), z, kink, result, executor);
      },
      py::arg("dtype"), py::arg("dense"), py::arg("centre"), py::arg("directions"), py::arg("radius"),
      py::arg("points"), py::arg("vertices"), py::arg("neurons"), py::arg("activation"), py::arg("n_breakpoints"),
      py::arg("breakpoint0"), py::arg("breakpoint1"), py::arg("slope"), py::arg("low"), py::arg("high"), py::arg("out"),
      py::arg("patterns"), py::arg("row_words"), py::arg("changes"), py::arg("changes_stride"), py::arg("nonfinite"),
      py::arg(last), NoGil());
}

template <class Last, class Run> void def_label_changes(py::module_& m, const char* name, const char* last, Run run) {
  m.def(
      name,
      [run](int type, Address labels, int64_t points, int64_t vertices, int64_t neurons, Address patterns,
            int64_t row_words, Address changes, int64_t changes_stride, Last executor) {
        run(static_cast<LabelType>(type), at<const void>(labels), points, vertices, neurons, at<uint64_t>(patterns),
            row_words, at<int64_t>(changes), changes_stride, executor);
      },
      py::arg("type"), py::arg("labels"), py::arg("points"), py::arg("vertices"), py::arg("neurons"),
      py::arg("patterns"), py::arg("row_words"), py::arg("changes"), py::arg("changes_stride"), py::arg(last), NoGil());
}
}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "Private kernels. Shapes, dtypes and devices are checked by pylinregion.native.";
  m.attr("cuda_built") = kCuda;
#ifdef PLR_CUDA_ARCHITECTURES
  m.attr("cuda_architectures") = PLR_CUDA_ARCHITECTURES;
#else
  m.attr("cuda_architectures") = "";
#endif
  m.def("simd", &simd_name);
  m.def("has_simd", &has_simd, py::arg("name"));
  m.def("set_simd", &set_simd, py::arg("name"));

  def_sign_changes<int>(m, "sign_changes_cpu", "threads",
                        [](DType dtype, const Preactivations& z, const Kink& kink, const SignChanges& out,
                           int threads) { sign_changes_cpu(dtype, z, kink, out, threads); });
  def_label_changes<int>(m, "label_changes_cpu", "threads", &label_changes_cpu);
  m.def(
      "distinct_patterns_cpu",
      [](Address patterns, int64_t points, int64_t vertices, int64_t words, Address distinct, bool weak_hash,
         int threads) {
        distinct_patterns_cpu(at<const uint64_t>(patterns), points, vertices, words, at<int64_t>(distinct), weak_hash,
                              threads);
      },
      py::arg("patterns"), py::arg("points"), py::arg("vertices"), py::arg("words"), py::arg("distinct"),
      py::arg("weak_hash"), py::arg("threads"), NoGil());

  m.def(
      "packed_size", [](int dtype, int64_t in, int64_t out) { return packed_size(static_cast<DType>(dtype), in, out); },
      py::arg("dtype"), py::arg("in_features"), py::arg("out_features"));
  m.def(
      "pack_linear",
      [](int dtype, Address weight, Address bias, int64_t in, int64_t out, Address packed) {
        pack_linear(static_cast<DType>(dtype), at<const void>(weight), at<const void>(bias), in, out, at<void>(packed));
      },
      py::arg("dtype"), py::arg("weight"), py::arg("bias"), py::arg("in_features"), py::arg("out_features"),
      py::arg("packed"), NoGil());
  m.def(
      "linear_cpu",
      [](int dtype, Address x, int64_t rows, int64_t in, int64_t out, Address packed, Address y, int threads) {
        linear_cpu(static_cast<DType>(dtype), at<const void>(x), rows, LinearLayer{in, out, at<const void>(packed)},
                   at<void>(y), threads);
      },
      py::arg("dtype"), py::arg("x"), py::arg("rows"), py::arg("in_features"), py::arg("out_features"),
      py::arg("packed"), py::arg("y"), py::arg("threads"), NoGil());

  bind_partition(m);
  bind_displacement(m);

#ifdef PLR_WITH_CUDA
  def_sign_changes<Address>(m, "sign_changes_cuda", "stream",
                            [](DType dtype, const Preactivations& z, const Kink& kink, const SignChanges& out,
                               Address stream) { sign_changes_cuda(dtype, z, kink, out, at<void>(stream)); });
  def_label_changes<Address>(
      m, "label_changes_cuda", "stream",
      [](LabelType type, const void* labels, int64_t points, int64_t vertices, int64_t neurons, uint64_t* patterns,
         int64_t row_words, int64_t* changes, int64_t changes_stride, Address stream) {
        label_changes_cuda(type, labels, points, vertices, neurons, patterns, row_words, changes, changes_stride,
                           at<void>(stream));
      });
  m.def(
      "distinct_patterns_cuda",
      [](Address patterns, int64_t points, int64_t vertices, int64_t words, Address distinct, bool weak_hash,
         Address hashes, Address stream) {
        distinct_patterns_cuda(at<const uint64_t>(patterns), points, vertices, words, at<int64_t>(distinct), weak_hash,
                               at<Hash128>(hashes), at<void>(stream));
      },
      py::arg("patterns"), py::arg("points"), py::arg("vertices"), py::arg("words"), py::arg("distinct"),
      py::arg("weak_hash"), py::arg("hashes"), py::arg("stream"), NoGil());
#endif
}
