// csrc/partition/trace_bindings.cpp -- tracing for Python: addresses in, arrays out, signals heard meanwhile; and the
// signs of lines at points of a slice.
#include <pybind11/stl.h>

#include "binding_parts.h"
#include "bindings.h"
#include "trace.h"

namespace pylinregion {
namespace {

class TraceProblem {
 public:
  TraceProblem(const std::vector<ExactStageTuple>& stages, const std::vector<std::vector<double>>& norms,
               int64_t dimensions)
      : network_(exact_stages_of(stages), dimensions, norms) {}

  py::dict trace(Address pairs, int64_t n, Address first, int64_t n_first, Address second, int64_t n_second,
                 Address radii, bool maps, bool starts, bool force_exact, int threads, const py::object& report) const {
    const Segments segments{
        n,        at<const int64_t>(pairs), at<const double>(first), at<const double>(second), n_first,
        n_second, at<const double>(radii)};
    TraceProgress progress;
    TraceResult result;
    run_reporting(stack_for(0), report, progress.segments, progress.stop,
                  [&] { result = trace_segments(network_, segments, {maps, starts, force_exact}, threads, progress); });
    const py::ssize_t breakpoints = static_cast<py::ssize_t>(result.t.size()),
                      changes = static_cast<py::ssize_t>(result.changes.size());
    py::dict out;
    out["filter"] = result.decisions.filter;
    out["exact"] = result.decisions.exact;
    out["zeros"] = result.decisions.zeros;
    out["breakpoints"] = array(std::move(result.breakpoints), {n});
    out["t"] = array(std::move(result.t), {breakpoints});
    out["change_counts"] = array(std::move(result.change_counts), {breakpoints});
    out["changes"] = array(std::move(result.changes), {changes});
    if (maps) out["maps"] = array(std::move(result.maps), {breakpoints + n, network_.outputs, 2});
    if (starts) out["starts"] = array(std::move(result.starts), {n, (network_.lines + 7) / 8});
    return out;
  }

 private:
  TraceNetwork network_;
};

// Points of the slice origin + s u + t v.
class SlicePoints {
 public:
  SlicePoints(const std::vector<ExactStageTuple>& stages, int64_t dimensions, Address u, Address v, Address origin)
      : rows_(segment_network(exact_stages_of(stages), dimensions)),
        plane_{at<const double>(u), at<const double>(v), at<const double>(origin)} {}

  // n lines, each at a point of its own. st: [n, 2]; lines, less: [n], see SegmentRows::side; on: n patterns, `stride`
  // bytes from one to the next; out: [n] int8.
  void sides(int64_t n, Address st, Address lines, Address less, Address on, int64_t stride, Address out) {
    const py::gil_scoped_release release;
    for (int64_t i = 0; i < n; ++i) {
      const double* point = at<const double>(st) + 2 * i;
      at<int8_t>(out)[i] =
          static_cast<int8_t>(rows_.side(at<const int64_t>(lines)[i], at<const int64_t>(less)[i],
                                         at<const uint8_t>(on) + i * stride, plane_, point[0], point[1]));
    }
  }

 private:
  SegmentRows rows_;
  const std::array<const double*, 3> plane_;
};
}  // namespace

void bind_trace(py::module_& m) {
  py::class_<SlicePoints>(m, "SlicePoints")
      .def(py::init<const std::vector<ExactStageTuple>&, int64_t, Address, Address, Address>(), py::arg("stages"),
           py::arg("dimensions"), py::arg("u"), py::arg("v"), py::arg("origin"))
      .def("sides", &SlicePoints::sides, py::arg("n"), py::arg("st"), py::arg("lines"), py::arg("less"), py::arg("on"),
           py::arg("stride"), py::arg("out"));
  py::class_<TraceProblem>(m, "TraceProblem")
      .def(py::init<const std::vector<ExactStageTuple>&, const std::vector<std::vector<double>>&, int64_t>(),
           py::arg("stages"), py::arg("norms"), py::arg("dimensions"))
      .def("trace", &TraceProblem::trace, py::arg("pairs"), py::arg("n"), py::arg("first"), py::arg("n_first"),
           py::arg("second"), py::arg("n_second"), py::arg("radii"), py::arg("maps"), py::arg("starts"),
           py::arg("force_exact"), py::arg("threads"), py::arg("report"));
}

}  // namespace pylinregion
