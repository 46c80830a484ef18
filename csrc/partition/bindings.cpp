// csrc/partition/bindings.cpp -- the slice engine for Python: addresses in, arrays out, signals heard meanwhile.
#include "bindings.h"

#include <pybind11/stl.h>

#include <algorithm>

#include "../simd.h"
#include "binding_parts.h"
#include "exact_rows.h"
#include "mesh.h"
#include "system.h"

namespace py = pybind11;

namespace pylinregion {
namespace {
EnumerateFunction enumerate_function() {
#if defined(__x86_64__)
  if (simd() == Simd::avx512) return enumerate_avx512;
  if (simd() == Simd::avx2) return enumerate_avx2;
#endif
  return enumerate_portable;
}

void add_cells(py::dict& out, Array<int64_t>&& offsets, Array<uint8_t>&& patterns, py::ssize_t pattern_bytes) {
  const py::ssize_t n = static_cast<py::ssize_t>(offsets.size()) - 1;
  out["offsets"] = array(std::move(offsets), {n + 1});
  out["patterns"] = array(std::move(patterns), {n, pattern_bytes});
}
void add_mesh(py::dict& out, Mesh&& mesh, py::ssize_t pattern_bytes) {
  add_cells(out, std::move(mesh.offsets), std::move(mesh.patterns), pattern_bytes);
  const py::ssize_t vertices = static_cast<py::ssize_t>(mesh.vertices.size() / 2),
                    edges = static_cast<py::ssize_t>(mesh.edge_rows.size()),
                    indices = static_cast<py::ssize_t>(mesh.indices.size());
  out["vertices"] = array(std::move(mesh.vertices), {vertices, 2});
  out["indices"] = array(std::move(mesh.indices), {indices});
  out["edges"] = array(std::move(mesh.edges), {edges, 2});
  out["edge_cells"] = array(std::move(mesh.edge_cells), {edges, 2});
  out["edge_rows"] = array(std::move(mesh.edge_rows), {edges});
}

// A mesh from the cells of parts of a walk, added in order.
class MeshOfParts {
 public:
  explicit MeshOfParts(int64_t pattern_bytes) : pattern_bytes_(pattern_bytes) {}

  // offsets [cells + 1], xy and keys [corners, 2], rows [corners], patterns [cells, pattern_bytes]
  void add(int64_t cells, Address offsets, Address xy, Address keys, Address rows, Address patterns) {
    CellList list;
    list.offsets.assign(at<const int64_t>(offsets), at<const int64_t>(offsets) + cells + 1);
    const int64_t corners = list.offsets.back();
    list.xy.assign(at<const double>(xy), at<const double>(xy) + 2 * corners);
    list.keys.assign(at<const VertexKey>(keys), at<const VertexKey>(keys) + corners);
    list.rows.assign(at<const int32_t>(rows), at<const int32_t>(rows) + corners);
    list.patterns.assign(at<const uint8_t>(patterns), at<const uint8_t>(patterns) + cells * pattern_bytes_);
    mesh_.add(list);
  }
  py::dict take() {
    py::dict out;
    add_mesh(out, std::move(mesh_), pattern_bytes_);
    return out;
  }

 private:
  Mesh mesh_;
  const int64_t pattern_bytes_;
};

using StageTuple = std::tuple<int64_t, int64_t, int64_t, Address, int64_t>;

class SliceProblem {
 public:
  SliceProblem(const std::vector<StageTuple>& stages, int64_t lines, Address a, Address b, Address c, Address error,
               Address norms, Address corners, int64_t n_corners, const std::vector<ExactStageTuple>& exact_stages,
               int64_t dimensions, Address u, Address v, Address origin,
               const std::vector<std::pair<int64_t, int64_t>>& groups, Address zero, Address same, Address multiples,
               bool central)
      : groups_(lines, groups, at<int64_t>(zero), at<int64_t>(same), at<int64_t>(multiples), central),
        system_{{},
                lines,
                at<double>(a),
                at<double>(b),
                at<double>(c),
                at<double>(error),
                at<double>(norms),
                at<double>(corners),
                n_corners,
                &groups_},
        exact_(exact_stages_of(exact_stages),
               ExactSlice{dimensions, at<double>(u), at<double>(v), at<double>(origin), at<double>(corners), n_corners},
               groups_) {
    for (const auto& [begin, end, extent, columns, stride] : stages)
      system_.stages.push_back({begin, end, extent, at<double>(columns), stride});
  }
  SliceProblem(const SliceProblem&) = delete;  // its parts point to each other

  // Part `part` of `parts`, as cells one by one; parts is 0: the whole, as a mesh.
  py::dict enumerate(bool cells, int threads, int64_t part, int64_t parts, bool force_exact, int64_t fold_ahead,
                     int64_t max_regions, int64_t max_bytes, const py::object& report) {
    EngineOptions options;
    Mesh mesh;
    KeptCells kept;
    if (cells) options.cells = system_.n_corners > 2 && parts == 0 ? static_cast<CellSink*>(&mesh) : &kept;
    options.threads = threads;
    options.part = part, options.parts = std::max<int64_t>(parts, 1);
    options.force_exact = force_exact;
    options.fold_ahead = fold_ahead;
    options.max_regions = max_regions;
    options.max_bytes = max_bytes;
    EngineProgress progress;
    EngineResult result;
    run_reporting(stack_for(system_.lines), report, progress.regions, progress.stop,
                  [&] { result = enumerate_function()(system_, options, exact_, progress); });
    py::dict out = counts(result);
    if (options.cells == &mesh) add_mesh(out, std::move(mesh), (system_.lines + 7) / 8);
    if (options.cells == &kept) add_kept(out, std::move(kept.all));
    return out;
  }

  int sign_at(int64_t i, int64_t j, int64_t k, Address on) { return exact_.sign_at(i, j, k, at<const uint8_t>(on)); }

 private:
  static py::dict counts(const EngineResult& result) {
    py::dict out;
    out["regions"] = result.regions;
    out["stopped"] = result.stopped;
    out["filter"] = result.decisions.filter;
    out["exact"] = result.decisions.exact;
    out["zeros"] = result.decisions.zeros;
    out["folds"] = result.decisions.folds;
    return out;
  }
  void add_kept(py::dict& out, CellList&& list) const {
    add_cells(out, std::move(list.offsets), std::move(list.patterns), (system_.lines + 7) / 8);
    const py::ssize_t ends = static_cast<py::ssize_t>(list.rows.size());
    out["xy"] = array(std::move(list.xy), {ends, 2});
    out["keys"] = array<uint64_t>(std::move(list.keys), {ends, 2});
    out["rows"] = array(std::move(list.rows), {ends});
  }

  Groups groups_;
  System system_;
  ExactRows exact_;
};
}  // namespace

void bind_partition(py::module_& m) {
  bind_trace(m);
  m.attr("most_folds") = kMostFolds;
  py::class_<MeshOfParts>(m, "MeshOfParts")
      .def(py::init<int64_t>(), py::arg("pattern_bytes"))
      .def("add", &MeshOfParts::add, py::arg("cells"), py::arg("offsets"), py::arg("xy"), py::arg("keys"),
           py::arg("rows"), py::arg("patterns"))
      .def("take", &MeshOfParts::take);
  py::class_<SliceProblem>(m, "SliceProblem")
      .def(py::init<const std::vector<StageTuple>&, int64_t, Address, Address, Address, Address, Address, Address,
                    int64_t, const std::vector<ExactStageTuple>&, int64_t, Address, Address, Address,
                    const std::vector<std::pair<int64_t, int64_t>>&, Address, Address, Address, bool>(),
           py::arg("stages"), py::arg("lines"), py::arg("a"), py::arg("b"), py::arg("c"), py::arg("error"),
           py::arg("norms"), py::arg("corners"), py::arg("n_corners"), py::arg("exact_stages"), py::arg("dimensions"),
           py::arg("u"), py::arg("v"), py::arg("origin"),
           py::arg("groups") = std::vector<std::pair<int64_t, int64_t>>(), py::arg("zero") = 0, py::arg("same") = 0,
           py::arg("multiples") = 0, py::arg("central") = false)
      .def("enumerate", &SliceProblem::enumerate, py::arg("cells"), py::arg("threads"), py::arg("part"),
           py::arg("parts"), py::arg("force_exact"), py::arg("fold_ahead"), py::arg("max_regions"),
           py::arg("max_bytes"), py::arg("report"))
      .def("sign_at", &SliceProblem::sign_at, py::arg("i"), py::arg("j"), py::arg("k"), py::arg("on"));
}

}  // namespace pylinregion
