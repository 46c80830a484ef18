// csrc/partition/arms_bindings.cpp -- counts on the arms around points, for Python.
#include <pybind11/stl.h>

#include "../simd.h"
#include "arms.h"
#include "bindings.h"
#include "given_rows.h"

namespace pylinregion {
namespace {

CountArmsFunction count_arms() {
#if defined(__x86_64__)
  if (simd() == Simd::avx512) return count_arms_avx512;
  if (simd() == Simd::avx2) return count_arms_avx2;
#endif
  return count_arms_portable;
}

class Arms {
 public:
  // multiples [lines]: see Groups.
  Arms(std::vector<StageArrays> exact_stages, int64_t dimensions, Numbers<int64_t> multiples)
      : multiples_(std::move(multiples)),
        exact_stages_(std::move(exact_stages), dimensions),
        dimensions_(dimensions),
        groups_(checked_lines(), {}, nullptr, nullptr, multiples_.data(), false),
        digits_(network_digits(exact_stages_.stages())) {}
  Arms(const Arms&) = delete;  // its parts point to each other

  // arrays: those of GivenRows, and affine [arms + 1, rows]. directions [1 or points, arms, dimensions].
  py::dict count(const py::dict& arrays, const Numbers<double>& directions, const Numbers<double>& origins,
                 const Numbers<double>& radii, bool force_exact, const py::object& report) const {
    const int64_t lines = exact_stages_.lines();
    const GivenRows rows(arrays, lines);
    const Numbers<double> affine = taken<double>(arrays, "affine");
    require_shape("directions", directions, {-1, -1, dimensions_});
    require(directions.shape(0) == rows.count || directions.shape(0) == 1,
            "directions must be one, or one for each point");
    require_shape("affine", affine, {directions.shape(1) + 1, rows.rows});
    require_shape("origins", origins, {rows.count, dimensions_});
    require_shape("radii", radii, {rows.count});
    const ArmSystems systems{rows.count,
                             directions.shape(1),
                             rows.begin.data(),
                             rows.stage_begin.data(),
                             rows.line.data(),
                             rows.on.data(),
                             affine.data(),
                             rows.error.data(),
                             rows.columns.data(),
                             directions.data(),
                             directions.shape(0) == 1,
                             origins.data(),
                             radii.data(),
                             dimensions_};
    EngineOptions options;
    options.force_exact = force_exact;
    EngineProgress progress;
    ArmCounts found;
    run_reporting(report, progress.regions, progress.stop,
                  [&] { found = count_arms()(systems, rows.stages, digits_, groups_, options, progress); });
    const py::ssize_t points = rows.count;
    py::dict out;
    out["patterns"] = array(std::move(found.patterns), {points});
    out["changes"] = array(std::move(found.changes), {points, (lines + 7) / 8});
    out["filter"] = found.decisions.filter;
    out["exact"] = found.decisions.exact;
    out["zeros"] = found.decisions.zeros;
    return out;
  }

 private:
  int64_t checked_lines() const {
    require_shape("multiples", multiples_, {exact_stages_.lines()});
    return exact_stages_.lines();
  }

  const Numbers<int64_t> multiples_;
  const ExactStages exact_stages_;
  const int64_t dimensions_;
  const Groups groups_;
  const std::shared_ptr<NetworkDigits> digits_;
};

}  // namespace

void bind_arms(py::module_& m) {
  py::class_<Arms>(m, "Arms")
      .def(py::init<std::vector<StageArrays>, int64_t, Numbers<int64_t>>(), py::arg("exact_stages").noconvert(),
           py::arg("dimensions"), py::arg("multiples").noconvert())
      .def("count", &Arms::count, py::arg("arrays"), py::arg("directions").noconvert(), py::arg("origins").noconvert(),
           py::arg("radii").noconvert(), py::arg("force_exact"), py::arg("report"));
}

}  // namespace pylinregion
