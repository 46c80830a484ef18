// csrc/partition/bindings.cpp -- the slice engine for Python: arrays in, arrays out, signals heard meanwhile.
#include "bindings.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <tuple>

#include "../convolution/convolution.h"
#include "../simd.h"
#include "binding_parts.h"
#include "exact_rows.h"
#include "given_rows.h"
#include "many_slices.h"
#include "mesh.h"
#include "system.h"
#include "walk_slices.h"
#include "walked_slices.h"

namespace py = pybind11;

namespace pylinregion {
namespace {
#ifdef PLR_WALKS_ON_DEVICE
constexpr bool kWalksOnDevice = true;
#else
constexpr bool kWalksOnDevice = false;
#endif

// What a device finds along slices; there is none that can: nothing.
std::optional<WalkedSlices> on_the_device(const std::vector<System>& systems, const EngineOptions& options,
                                          EngineProgress& progress, const Ask& ask) {
#ifdef PLR_WALKS_ON_DEVICE
  return walk_slices_cuda(systems, options, progress, ask);
#else
  static_cast<void>(systems), static_cast<void>(options), static_cast<void>(progress), static_cast<void>(ask);
  return std::nullopt;
#endif
}

void require_device(bool on_device) {
  require(!on_device || kWalksOnDevice, "on_device: the extension was built without CUDA");
}

// How many of so many slices the CPU has done, and how often the device had too little memory.
void add_device(py::dict& out, const std::optional<WalkedSlices>& walked, int64_t slices) {
  out["on_the_cpu"] = walked ? walked->left_to_the_cpu() : slices;
  out["halvings"] = walked ? walked->halvings : 0;
}

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
  void add(const Numbers<int64_t>& offsets, const Numbers<double>& xy, const Numbers<uint64_t>& keys,
           const Numbers<int32_t>& rows, const Numbers<uint8_t>& patterns) {
    require_shape("offsets", offsets, {-1});
    const py::ssize_t cells = offsets.shape(0) - 1;
    require(cells >= 0 && offsets.at(0) == 0, "offsets must start at 0");
    for (py::ssize_t cell = 0; cell < cells; ++cell)
      require(offsets.at(cell) <= offsets.at(cell + 1), "offsets must ascend");
    const py::ssize_t corners = offsets.at(cells);
    require_shape("xy", xy, {corners, 2});
    require_shape("keys", keys, {corners, 2});
    require_shape("rows", rows, {corners});
    require_shape("patterns", patterns, {cells, pattern_bytes_});
    CellList list;
    list.offsets.assign(offsets.data(), offsets.data() + cells + 1);
    list.xy.assign(xy.data(), xy.data() + 2 * corners);
    list.keys.reserve(static_cast<size_t>(corners));
    for (py::ssize_t corner = 0; corner < corners; ++corner)
      list.keys.push_back({keys.at(corner, 0), keys.at(corner, 1)});
    list.rows.assign(rows.data(), rows.data() + corners);
    list.patterns.assign(patterns.data(), patterns.data() + cells * pattern_bytes_);
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

// A walk along a slice as it is asked for, and what it found for Python.
class Walked {
 public:
  // Part `part` of `parts`, as cells one by one; parts is 0: the whole, as a mesh if the slice is a polygon.
  Walked(bool polygon, bool cells, int threads, int64_t part, int64_t parts, bool force_exact, int64_t fold_ahead,
         int64_t max_regions, int64_t max_bytes) {
    if (cells) options_.cells = polygon && parts == 0 ? static_cast<CellSink*>(&mesh_) : &kept_;
    options_.threads = threads;
    options_.part = part, options_.parts = std::max<int64_t>(parts, 1);
    options_.force_exact = force_exact;
    options_.fold_ahead = fold_ahead;
    options_.max_regions = max_regions;
    options_.max_bytes = max_bytes;
  }
  Walked(const Walked&) = delete;
  void count_pieces() { options_.pieces = true; }

  py::dict run(const System& system, const ExactRows& exact, py::ssize_t pattern_bytes, const py::object& report) {
    EngineProgress progress;
    EngineResult result;
    run_reporting(report, progress.regions, progress.stop,
                  [&] { result = enumerate_function()(system, options_, exact, progress); });
    return told(std::move(result), system, pattern_bytes);
  }

  // By a device, if it can; else as above. numbered: the system as walk_slices_cuda takes it.
  py::dict run_on_device(const System& system, const System& numbered, const ExactRows& exact,
                         py::ssize_t pattern_bytes, const py::object& report, const Ask& ask) {
    EngineProgress progress;
    EngineResult result;
    std::optional<WalkedSlices> walked;
    run_reporting(report, progress.regions, progress.stop, [&] {
      if (options_.parts == 1 && !options_.force_exact) walked = on_the_device({numbered}, options_, progress, ask);
      if (walked && walked->done(0) && !progress.stop) {
        result = walked->result(0, system.line, system.lines);
        if (options_.cells) walked->give_cells(0, *options_.cells);
      } else if (!progress.stop) {
        result = enumerate_function()(system, options_, exact, progress);
      }
    });
    py::dict out = told(std::move(result), system, pattern_bytes);
    add_device(out, walked, 1);
    return out;
  }

 private:
  py::dict told(EngineResult&& result, const System& system, py::ssize_t pattern_bytes) {
    py::dict out;
    out["regions"] = result.regions;
    out["stopped"] = result.stopped;
    out["filter"] = result.decisions.filter;
    out["exact"] = result.decisions.exact;
    out["zeros"] = result.decisions.zeros;
    out["folds"] = result.decisions.folds;
    if (options_.pieces) {
      const py::ssize_t stages = static_cast<py::ssize_t>(result.regions.size()), corners = system.n_corners;
      out["pieces"] = array(std::move(result.pieces), {stages, corners});
      out["zero_along"] = array(std::move(result.zero_along), {corners});
      out["zero_at"] = array(std::move(result.zero_at), {corners});
    }
    if (options_.cells == &mesh_) add_mesh(out, std::move(mesh_), pattern_bytes);
    if (options_.cells == &kept_) add_kept(out, std::move(kept_.all), pattern_bytes);
    return out;
  }
  static void add_kept(py::dict& out, CellList&& list, py::ssize_t pattern_bytes) {
    add_cells(out, std::move(list.offsets), std::move(list.patterns), pattern_bytes);
    const py::ssize_t ends = static_cast<py::ssize_t>(list.rows.size());
    out["xy"] = array(std::move(list.xy), {ends, 2});
    out["keys"] = array<uint64_t>(std::move(list.keys), {ends, 2});
    out["rows"] = array(std::move(list.rows), {ends});
  }

  EngineOptions options_;
  Mesh mesh_;
  KeptCells kept_;
};

// begin, end, extent and columns of a stage with lines: see StageView.
using LineStage = std::tuple<int64_t, int64_t, int64_t, Numbers<double>>;
using OptionalNumbers = std::optional<Numbers<int64_t>>;

class SliceProblem {
 public:
  SliceProblem(std::vector<LineStage> stages, Numbers<double> a, Numbers<double> b, Numbers<double> c,
               Numbers<double> error, std::optional<Numbers<double>> norms, Numbers<double> corners,
               std::vector<StageArrays> exact_stages, Numbers<double> u, Numbers<double> v, Numbers<double> origin,
               const std::vector<std::pair<int64_t, int64_t>>& groups, OptionalNumbers zero, OptionalNumbers same,
               OptionalNumbers multiples, bool central)
      : kept_{std::move(stages), std::move(a),       std::move(b),        std::move(c), std::move(error),
              std::move(norms),  std::move(corners), std::move(u),        std::move(v), std::move(origin),
              std::move(zero),   std::move(same),    std::move(multiples)},
        exact_stages_(std::move(exact_stages), size("u", kept_.u)),
        groups_(lines(), groups, data(kept_.zero), data(kept_.same), data(kept_.multiples), central),
        system_(system()),
        exact_(network_digits(exact_stages_.stages()),
               ExactSlice{kept_.u.shape(0), kept_.u.data(), kept_.v.data(), kept_.origin.data(), kept_.corners.data(),
                          kept_.corners.shape(0)},
               groups_) {}
  SliceProblem(const SliceProblem&) = delete;  // its parts point to each other

  // See Walked.
  py::dict enumerate(bool cells, int threads, int64_t part, int64_t parts, bool force_exact, int64_t fold_ahead,
                     int64_t max_regions, int64_t max_bytes, const py::object& report, bool on_device) {
    Walked walk(system_.n_corners > 2, cells, threads, part, parts, force_exact, fold_ahead, max_regions, max_bytes);
    require_device(on_device);
    if (!on_device) return walk.run(system_, exact_, (system_.lines + 7) / 8, report);
    return walk.run_on_device(
        system_, system_, exact_, (system_.lines + 7) / 8, report,
        [this](int64_t, const Question& question, const uint8_t* on) { return said_by(exact_, question, on); });
  }

  int sign_at(int64_t i, int64_t j, int64_t k, const Numbers<uint8_t>& on) {
    require_shape("on", on, {lines()});
    return exact_.sign_at(i, j, k, on.data());
  }

 private:
  // The arrays that everything else points into.
  struct Kept {
    std::vector<LineStage> stages;
    Numbers<double> a, b, c, error;
    std::optional<Numbers<double>> norms;
    Numbers<double> corners, u, v, origin;
    OptionalNumbers zero, same, multiples;
  };
  static int64_t size(const char* name, const py::array& array) {
    require_shape(name, array, {-1});
    return array.shape(0);
  }
  template <class T> static const T* data(const std::optional<Numbers<T>>& array) {
    return array ? array->data() : nullptr;
  }
  int64_t lines() const { return exact_stages_.lines(); }

  System system() {
    for (const auto& [name, array] :
         {std::pair{"a", &kept_.a}, {"b", &kept_.b}, {"c", &kept_.c}, {"error", &kept_.error}})
      require_shape(name, *array, {lines()});
    for (const auto& [name, array] : {std::pair{"v", &kept_.v}, {"origin", &kept_.origin}})
      require_shape(name, *array, {kept_.u.shape(0)});
    for (const auto& [name, array] :
         {std::pair{"zero", &kept_.zero}, {"same", &kept_.same}, {"multiples", &kept_.multiples}})
      if (*array) require_shape(name, **array, {lines()});
    require_shape("corners", kept_.corners, {-1, 2});
    const auto count = static_cast<py::ssize_t>(kept_.stages.size());
    if (kept_.norms) require_shape("norms", *kept_.norms, {2, count, count});
    for (const auto& [begin, end, extent, columns] : kept_.stages) {
      require(0 <= begin && begin <= end && end <= extent && extent <= lines(), "stages must be of lines in order");
      require_shape("columns", columns, {end - begin, -1});
      require(columns.shape(1) >= extent - end, "columns must have all lines up to the extent");
      stages_.push_back({begin, end, extent, columns.data(), columns.shape(1)});
    }
    return {{stages_.data(), static_cast<int64_t>(stages_.size())},
            lines(),
            lines(),
            nullptr,
            nullptr,
            kept_.a.data(),
            kept_.b.data(),
            kept_.c.data(),
            kept_.error.data(),
            data(kept_.norms),
            kept_.corners.data(),
            kept_.corners.shape(0),
            groups_.table(),
            groups_.zero()};
  }
  const Kept kept_;
  const ExactStages exact_stages_;
  Groups groups_;
  std::vector<StageView> stages_;
  System system_;
  ExactRows exact_;
};

// The systems of some slices as Python has them, checked.
class GivenSystems {
 public:
  GivenSystems(const py::dict& arrays, int64_t lines, int64_t dimensions) : rows_(arrays, lines) {
    for (const char* name : {"a", "b", "c", "u", "v", "origin", "corners"})
      doubles_.push_back(taken<double>(arrays, name));
    const auto& [a, b, c, u, v, origin, corners] =
        std::tie(doubles_[0], doubles_[1], doubles_[2], doubles_[3], doubles_[4], doubles_[5], doubles_[6]);
    stages = rows_.stages, most_rows = rows_.most_rows;
    const int64_t slices = rows_.count;
    for (const auto& [name, array] : {std::pair{"a", &a}, {"b", &b}, {"c", &c}})
      require_shape(name, *array, {rows_.rows});
    require_shape("origin", origin, {slices, dimensions});
    require_shape("u", u, {-1, dimensions});
    require(u.shape(0) == slices || u.shape(0) == 1, "u must be one, or one for each slice");
    require_shape("v", v, {u.shape(0), dimensions});
    require_shape("corners", corners, {slices, -1, 2});
    if (arrays.contains("borders")) {
      borders_ = taken<double>(arrays, "borders");
      require_shape("borders", *borders_, {slices, corners.shape(1), 2, 2});
    }
    if (arrays.contains("norms") && !arrays["norms"].is_none()) {
      norms_ = taken<double>(arrays, "norms");
      require(slices == 1, "norms are those of one slice");
      require_shape("norms", *norms_, {2, stages, stages});
    }
    systems = {slices,
               rows_.begin.data(),
               rows_.stage_begin.data(),
               rows_.line.data(),
               rows_.on.data(),
               a.data(),
               b.data(),
               c.data(),
               rows_.error.data(),
               rows_.columns.data(),
               norms_ ? norms_->data() : nullptr,
               u.data(),
               v.data(),
               origin.data(),
               u.shape(0) == 1,
               corners.data(),
               corners.shape(1),
               dimensions,
               borders_ ? borders_->data() : nullptr};
  }
  GivenSystems(const GivenSystems&) = delete;  // its parts point to each other

  SliceSystems systems{};
  int64_t stages = 0, most_rows = 0;

 private:
  const GivenRows rows_;
  std::vector<Numbers<double>> doubles_;
  std::optional<Numbers<double>> norms_, borders_;
};

// A network, and slices of it, some at a time: see many_slices.h.
class ManySlices {
 public:
  ManySlices(std::vector<StageArrays> exact_stages, int64_t dimensions,
             const std::vector<std::pair<int64_t, int64_t>>& groups, OptionalNumbers zero, OptionalNumbers same,
             OptionalNumbers multiples, bool central)
      : zero_(std::move(zero)),
        same_(std::move(same)),
        multiples_(std::move(multiples)),
        exact_stages_(std::move(exact_stages), dimensions),
        dimensions_(dimensions),
        groups_(checked_lines(), groups, data(zero_), data(same_), data(multiples_), central),
        digits_(network_digits(exact_stages_.stages())) {}
  ManySlices(const ManySlices&) = delete;  // its parts point to each other

  py::dict count(const py::dict& arrays, int threads, bool force_exact, int64_t max_regions, const py::object& report,
                 bool pieces, bool on_device) {
    const GivenSystems given(arrays, exact_stages_.lines(), dimensions_);
    require_device(on_device);
    EngineOptions options;
    options.threads = threads;
    options.force_exact = force_exact;
    options.max_regions = max_regions;
    options.pieces = pieces;
    EngineProgress progress;
    SliceCounts found;
    std::optional<WalkedSlices> walked;
    run_reporting(report, progress.regions, progress.stop, [&] {
      if (on_device && !force_exact) walked = walked_on_device(given, options, progress);
      found = count_slices(enumerate_function(), given.systems, given.stages, digits_, groups_, options, progress,
                           walked ? &*walked : nullptr);
    });
    const py::ssize_t slices = given.systems.slices;
    py::dict out;
    out["regions"] = array(std::move(found.regions), {slices, static_cast<py::ssize_t>(given.stages)});
    out["changes"] = array(std::move(found.changes), {slices, (exact_stages_.lines() + 7) / 8});
    out["decisions"] = array(std::move(found.decisions), {slices, 4});
    out["stopped_at"] = found.stopped_at;
    if (on_device) add_device(out, walked, slices);
    if (pieces && found.stopped_at < 0) add_pieces(out, std::move(found), given);
    return out;
  }

  // Of segments: see SegmentBreakpoints.
  py::dict trace(const py::dict& arrays, int threads, bool force_exact, const py::object& report, bool on_device) {
    const GivenSystems given(arrays, exact_stages_.lines(), dimensions_);
    require_device(on_device);
    require(given.systems.n_corners == 2, "corners must be the two ends of segments");
    EngineOptions options;
    options.threads = threads;
    options.force_exact = force_exact;
    EngineProgress progress;
    SegmentBreakpoints found;
    std::optional<WalkedSlices> walked;
    run_reporting(report, progress.regions, progress.stop, [&] {
      if (on_device && !force_exact) {
        KeptCells any;
        EngineOptions with_cells = options;
        with_cells.cells = &any;
        walked = walked_on_device(given, with_cells, progress);
      }
      found = trace_slices(enumerate_function(), given.systems, given.stages, digits_, groups_, options, progress,
                           walked ? &*walked : nullptr);
    });
    const py::ssize_t slices = given.systems.slices, breakpoints = static_cast<py::ssize_t>(found.t.size()),
                      changes = static_cast<py::ssize_t>(found.changes.size());
    py::dict out;
    if (on_device) add_device(out, walked, slices);
    out["filter"] = found.decisions.filter;
    out["exact"] = found.decisions.exact;
    out["zeros"] = found.decisions.zeros;
    out["breakpoints"] = array(std::move(found.breakpoints), {slices});
    out["t"] = array(std::move(found.t), {breakpoints});
    out["change_counts"] = array(std::move(found.change_counts), {breakpoints});
    out["changes"] = array(std::move(found.changes), {changes});
    out["starts"] = array(std::move(found.starts), {slices, (exact_stages_.lines() + 7) / 8});
    return out;
  }

  // As SliceProblem's, of one slice. Patterns are those of its rows.
  py::dict enumerate(const py::dict& arrays, bool cells, int threads, int64_t part, int64_t parts, bool force_exact,
                     int64_t fold_ahead, int64_t max_regions, int64_t max_bytes, const py::object& report, bool pieces,
                     bool on_device) {
    const GivenSystems given(arrays, exact_stages_.lines(), dimensions_);
    require(given.systems.slices == 1, "the arrays must be those of one slice");
    const std::vector<uint8_t> on = settled_on(given.systems, 0, groups_.lines());
    std::vector<StageView> stages;
    const System system = system_of(given.systems, 0, given.stages, given.systems.columns, on, groups_, stages);
    const ExactRows exact(digits_, exact_slice(given.systems, 0), groups_);
    Walked walk(system.n_corners > 2, cells, threads, part, parts, force_exact, fold_ahead, max_regions, max_bytes);
    if (pieces) walk.count_pieces();
    require_device(on_device);
    if (!on_device) return walk.run(system, exact, (system.rows + 7) / 8, report);
    const NumberedSystems numbered(given.systems, given.stages, groups_);
    IntegersOfSlices integers(given.systems, digits_, groups_);
    return walk.run_on_device(system, numbered.all().front(), exact, (system.rows + 7) / 8, report,
                              [&](int64_t slice, const Question& question, const uint8_t* own) {
                                return integers.say(slice, question, own);
                              });
  }

 private:
  static const int64_t* data(const OptionalNumbers& array) { return array ? array->data() : nullptr; }
  std::optional<WalkedSlices> walked_on_device(const GivenSystems& given, const EngineOptions& options,
                                               EngineProgress& progress) const {
    if (!given.systems.slices) return std::nullopt;
    const NumberedSystems numbered(given.systems, given.stages, groups_);
    IntegersOfSlices integers(given.systems, digits_, groups_);
    return on_the_device(
        numbered.all(), options, progress,
        [&](int64_t slice, const Question& question, const uint8_t* on) { return integers.say(slice, question, on); });
  }
  void add_pieces(py::dict& out, SliceCounts&& found, const GivenSystems& given) const {
    const py::ssize_t slices = given.systems.slices, corners = given.systems.n_corners;
    out["somewhere"] = array(std::move(found.somewhere), {slices, (exact_stages_.lines() + 7) / 8});
    out["pieces"] = array(std::move(found.pieces), {slices, static_cast<py::ssize_t>(given.stages), corners});
    out["zero_along"] = array(std::move(found.zero_along), {slices, corners});
    out["zero_at"] = array(std::move(found.zero_at), {slices, corners});
  }
  int64_t checked_lines() const {
    const int64_t lines = exact_stages_.lines();
    for (const auto& [name, array] : {std::pair{"zero", &zero_}, {"same", &same_}, {"multiples", &multiples_}})
      if (*array) require_shape(name, **array, {lines});
    return lines;
  }

  const OptionalNumbers zero_, same_, multiples_;
  const ExactStages exact_stages_;
  const int64_t dimensions_;
  const Groups groups_;
  const std::shared_ptr<NetworkDigits> digits_;
};
// Adds W x for the vectors x [n, width] to out [n, rows], or x W for [n, rows] to [n, width]; W is a convolution as
// Python's LinearMap gives it.
void add_convolved(const py::tuple& told, const Numbers<double>& x, bool forwards, int threads, Numbers<double>& out) {
  const MapArrays given(told, "map");
  const LinearMap& map = given.map();
  require(map.kind == LinearMap::Kind::convolution, "map must be a convolution");
  require_shape("x", x, {-1, forwards ? map.width : map.rows});
  const int64_t n = x.shape(0);
  require_shape("out", out, {n, forwards ? map.rows : map.width});
  double* const to = out.mutable_data();
  const py::gil_scoped_release release;
  convolve({map, forwards, x.data(), to, n, threads});
}

void add_images_of(const py::tuple& told, const Numbers<int64_t>& units, const Numbers<double>& factors, int threads,
                   Numbers<double>& out) {
  const MapArrays given(told, "map");
  const LinearMap& map = given.map();
  require(map.kind == LinearMap::Kind::convolution, "map must be a convolution");
  require_shape("units", units, {-1});
  const int64_t n = units.shape(0);
  require_shape("factors", factors, {n});
  require_shape("out", out, {n, map.rows});
  for (int64_t i = 0; i < n; ++i)
    require(units.data()[i] >= 0 && units.data()[i] < map.width, "units must be those that the map reads");
  double* const to = out.mutable_data();
  const py::gil_scoped_release release;
  add_images({map, units.data(), factors.data(), to, n, threads});
}
}  // namespace

void bind_partition(py::module_& m) {
  m.def("add_convolved", &add_convolved, py::arg("map"), py::arg("x").noconvert(), py::arg("forwards"),
        py::arg("threads"), py::arg("out").noconvert());
  m.def("add_images", &add_images_of, py::arg("map"), py::arg("units").noconvert(), py::arg("factors").noconvert(),
        py::arg("threads"), py::arg("out").noconvert());
  bind_trace(m);
  bind_dense_fold(m);
  bind_arms(m);
  m.attr("most_folds") = kMostFolds;
  m.attr("convolution_run") = kConvolutionRun;
  py::class_<MeshOfParts>(m, "MeshOfParts")
      .def(py::init<int64_t>(), py::arg("pattern_bytes"))
      .def("add", &MeshOfParts::add, py::arg("offsets").noconvert(), py::arg("xy").noconvert(),
           py::arg("keys").noconvert(), py::arg("rows").noconvert(), py::arg("patterns").noconvert())
      .def("take", &MeshOfParts::take);
  py::class_<SliceProblem>(m, "SliceProblem")
      .def(py::init<std::vector<LineStage>, Numbers<double>, Numbers<double>, Numbers<double>, Numbers<double>,
                    std::optional<Numbers<double>>, Numbers<double>, std::vector<StageArrays>, Numbers<double>,
                    Numbers<double>, Numbers<double>, const std::vector<std::pair<int64_t, int64_t>>&, OptionalNumbers,
                    OptionalNumbers, OptionalNumbers, bool>(),
           py::arg("stages").noconvert(), py::arg("a").noconvert(), py::arg("b").noconvert(), py::arg("c").noconvert(),
           py::arg("error").noconvert(), py::arg("norms").noconvert(), py::arg("corners").noconvert(),
           py::arg("exact_stages").noconvert(), py::arg("u").noconvert(), py::arg("v").noconvert(),
           py::arg("origin").noconvert(), py::arg("groups") = std::vector<std::pair<int64_t, int64_t>>(),
           py::arg("zero").noconvert() = py::none(), py::arg("same").noconvert() = py::none(),
           py::arg("multiples").noconvert() = py::none(), py::arg("central") = false)
      .def("enumerate", &SliceProblem::enumerate, py::arg("cells"), py::arg("threads"), py::arg("part"),
           py::arg("parts"), py::arg("force_exact"), py::arg("fold_ahead"), py::arg("max_regions"),
           py::arg("max_bytes"), py::arg("report"), py::arg("on_device") = false)
      .def("sign_at", &SliceProblem::sign_at, py::arg("i"), py::arg("j"), py::arg("k"), py::arg("on").noconvert());
  py::class_<ManySlices>(m, "ManySlices")
      .def(py::init<std::vector<StageArrays>, int64_t, const std::vector<std::pair<int64_t, int64_t>>&, OptionalNumbers,
                    OptionalNumbers, OptionalNumbers, bool>(),
           py::arg("exact_stages").noconvert(), py::arg("dimensions"), py::arg("groups"), py::arg("zero").noconvert(),
           py::arg("same").noconvert(), py::arg("multiples").noconvert(), py::arg("central"))
      .def("count", &ManySlices::count, py::arg("arrays"), py::arg("threads"), py::arg("force_exact"),
           py::arg("max_regions"), py::arg("report"), py::arg("pieces") = false, py::arg("on_device") = false)
      .def("trace", &ManySlices::trace, py::arg("arrays"), py::arg("threads"), py::arg("force_exact"),
           py::arg("report"), py::arg("on_device") = false)
      .def("enumerate", &ManySlices::enumerate, py::arg("arrays"), py::arg("cells"), py::arg("threads"),
           py::arg("part"), py::arg("parts"), py::arg("force_exact"), py::arg("fold_ahead"), py::arg("max_regions"),
           py::arg("max_bytes"), py::arg("report"), py::arg("pieces") = false, py::arg("on_device") = false);
}

}  // namespace pylinregion
