// csrc/partition/trace_bindings.cpp -- tracing for Python: arrays in, arrays out, signals heard meanwhile; and the
// signs of lines at points of a slice.
#include <pybind11/stl.h>

#include "binding_parts.h"
#include "bindings.h"
#include "trace.h"

namespace pylinregion {
namespace {

class TraceProblem {
 public:
  TraceProblem(std::vector<StageArrays> stages, const std::vector<std::vector<double>>& norms, int64_t dimensions)
      : stages_(std::move(stages), dimensions), network_(stages_.stages(), dimensions, checked(norms)) {}

  // pairs [n, 2]: rows of first [any, dimensions] and second; radii [n] or nothing.
  py::dict trace(const Numbers<int64_t>& pairs, const Numbers<double>& first, const Numbers<double>& second,
                 const std::optional<Numbers<double>>& radii, bool maps, bool starts, bool force_exact, int threads,
                 const py::object& report) const {
    require_shape("pairs", pairs, {-1, 2});
    require_shape("first", first, {-1, network_.dimensions});
    require_shape("second", second, {-1, network_.dimensions});
    const py::ssize_t n = pairs.shape(0);
    if (radii) require_shape("radii", *radii, {n});
    for (py::ssize_t segment = 0; segment < n; ++segment)
      require(0 <= pairs.at(segment, 0) && pairs.at(segment, 0) < first.shape(0) && 0 <= pairs.at(segment, 1) &&
                  pairs.at(segment, 1) < second.shape(0),
              "pairs must be numbers of rows");
    const Segments segments{
        n, pairs.data(), first.data(), second.data(), first.shape(0), second.shape(0), radii ? radii->data() : nullptr};
    TraceProgress progress;
    TraceResult result;
    run_reporting(report, progress.segments, progress.stop,
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
  const std::vector<std::vector<double>>& checked(const std::vector<std::vector<double>>& norms) const {
    require(norms.size() == stages_.stages().size(), "norms must be of each stage");
    for (size_t number = 0; number < norms.size(); ++number)
      require(norms[number].size() == stages_.stages()[number].blocks.size(), "norms must be of each block");
    return norms;
  }

  const ExactStages stages_;
  const TraceNetwork network_;
};

// Points of the slice origin + s u + t v.
class SlicePoints {
 public:
  SlicePoints(std::vector<StageArrays> stages, const Numbers<double>& u, const Numbers<double>& v,
              const Numbers<double>& origin)
      : kept_{u, v, origin},
        stages_(std::move(stages), u.size()),
        rows_(segment_network(stages_.stages(), u.size())),
        plane_{u.data(), v.data(), origin.data()} {
    for (const py::array& each : kept_) require_shape("u, v and origin", each, {u.size()});
  }

  // The signs of lines, each at a point of its own. st: [n, 2]; lines, less: [n], see SegmentRows::side; on: [n,
  // lines].
  py::array_t<int8_t> sides(const Numbers<double>& st, const Numbers<int64_t>& lines, const Numbers<int64_t>& less,
                            const Numbers<uint8_t>& on) {
    require_shape("lines", lines, {-1});
    const py::ssize_t n = lines.shape(0);
    require_shape("st", st, {n, 2});
    require_shape("less", less, {n});
    require_shape("on", on, {n, stages_.lines()});
    for (py::ssize_t i = 0; i < n; ++i)
      require(0 <= lines.at(i) && lines.at(i) < stages_.lines() && -1 <= less.at(i) && less.at(i) < stages_.lines(),
              "lines and less must be numbers of lines");
    py::array_t<int8_t> out(n);
    int8_t* sign = out.mutable_data();
    const double* point = st.data();
    const uint8_t* pattern = on.data();
    const int64_t *line = lines.data(), *other = less.data();
    const py::gil_scoped_release release;
    for (py::ssize_t i = 0; i < n; ++i)
      sign[i] = static_cast<int8_t>(
          rows_.side(line[i], other[i], pattern + i * stages_.lines(), plane_, point[2 * i], point[2 * i + 1]));
    return out;
  }

 private:
  const std::array<Numbers<double>, 3> kept_;
  const ExactStages stages_;
  SegmentRows rows_;
  const std::array<const double*, 3> plane_;
};
}  // namespace

void bind_trace(py::module_& m) {
  py::class_<SlicePoints>(m, "SlicePoints")
      .def(py::init<std::vector<StageArrays>, const Numbers<double>&, const Numbers<double>&, const Numbers<double>&>(),
           py::arg("stages").noconvert(), py::arg("u").noconvert(), py::arg("v").noconvert(),
           py::arg("origin").noconvert())
      .def("sides", &SlicePoints::sides, py::arg("st").noconvert(), py::arg("lines").noconvert(),
           py::arg("less").noconvert(), py::arg("on").noconvert());
  py::class_<TraceProblem>(m, "TraceProblem")
      .def(py::init<std::vector<StageArrays>, const std::vector<std::vector<double>>&, int64_t>(),
           py::arg("stages").noconvert(), py::arg("norms"), py::arg("dimensions"))
      .def("trace", &TraceProblem::trace, py::arg("pairs").noconvert(), py::arg("first").noconvert(),
           py::arg("second").noconvert(), py::arg("radii").noconvert(), py::arg("maps"), py::arg("starts"),
           py::arg("force_exact"), py::arg("threads"), py::arg("report"));
}

}  // namespace pylinregion
