// csrc/partition/trace_bindings.cpp -- tracing for Python: addresses in, arrays out, signals heard meanwhile.
#include "trace_bindings.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <condition_variable>
#include <mutex>
#include <thread>

#include "trace.h"

namespace py = pybind11;

namespace pylinregion {
namespace {
using Address = std::uintptr_t;  // of NumPy arrays that the caller keeps alive

template <class T> T* at(Address address) { return reinterpret_cast<T*>(address); }

// An array that owns a vector, or what grew.
template <class T, template <class...> class Owner>
py::array_t<T> array(Owner<T>&& values, std::vector<py::ssize_t> shape) {
  auto* owner = new Owner<T>(std::move(values));
  const py::capsule free(owner, [](void* p) { delete static_cast<Owner<T>*>(p); });
  return py::array_t<T>(std::move(shape), owner->data(), free);
}

using ExactStageTuple =
    std::tuple<int64_t, std::vector<std::pair<int64_t, Address>>, Address, Address, Address, Address, Address, double>;

// Runs `work` on a thread and calls report(segments done, regions so far) meanwhile, about twenty times a second.
template <class Work> void run(TraceProgress& progress, const py::object& report, const Work& work) {
  std::exception_ptr error;
  std::mutex mutex;
  std::condition_variable ready;
  bool done = false, interrupted = false;
  std::thread worker([&] {
    try {
      work();
    } catch (...) {
      error = std::current_exception();
    }
    const std::lock_guard<std::mutex> lock(mutex);
    done = true;
    ready.notify_one();
  });
  while (true) {
    {
      const py::gil_scoped_release release;
      std::unique_lock<std::mutex> lock(mutex);
      ready.wait_for(lock, std::chrono::milliseconds(50), [&] { return done; });
      if (done) break;
    }
    const auto told = [&] {
      if (report.is_none()) return true;
      PyObject* answer = PyObject_CallFunction(report.ptr(), "LL", static_cast<long long>(progress.segments.load()),
                                               static_cast<long long>(progress.regions.load()));
      Py_XDECREF(answer);
      return answer != nullptr;
    };
    if (!interrupted && (PyErr_CheckSignals() != 0 || !told())) interrupted = progress.stop = true;
  }
  worker.join();
  if (interrupted) throw py::error_already_set();
  if (error) std::rethrow_exception(error);
}

class TraceProblem {
 public:
  TraceProblem(const std::vector<ExactStageTuple>& tuples, const std::vector<std::vector<double>>& norms,
               int64_t dimensions)
      : network_(stages(tuples), dimensions, norms) {}

  py::dict trace(Address starts, Address ends, int64_t n, bool maps, bool force_exact, bool one_window, int threads,
                 const py::object& report) const {
    TraceProgress progress;
    TraceResult result;
    run(progress, report, [&] {
      result = trace_segments(network_, at<double>(starts), at<double>(ends), n, {maps, force_exact, one_window},
                              threads, progress);
    });
    const py::ssize_t breakpoints = static_cast<py::ssize_t>(result.t.size()),
                      changes = static_cast<py::ssize_t>(result.change_line.size());
    py::dict out = decisions(result.decisions);
    out["offsets"] = array(std::move(result.offsets), {n + 1});
    out["t"] = array(std::move(result.t), {breakpoints});
    out["change_offsets"] = array(std::move(result.change_offsets), {breakpoints + 1});
    out["change_lines"] = array(std::move(result.change_line), {changes});
    if (maps) out["maps"] = array(std::move(result.maps), {breakpoints + n, network_.outputs, 2});
    return out;
  }

  py::dict arms(Address centres, Address radii, int64_t n, Address directions, int64_t n_directions,
                bool own_directions, bool force_exact, int threads, const py::object& report) const {
    TraceProgress progress;
    ArmsResult result;
    run(progress, report, [&] {
      result = trace_arms(network_, at<double>(centres), at<double>(radii), n, at<double>(directions), n_directions,
                          own_directions, {false, force_exact, false}, threads, progress);
    });
    py::dict out = decisions(result.decisions);
    out["changes"] = array(std::move(result.changes), {n, static_cast<py::ssize_t>(network_.stages.size())});
    out["regions"] = array(std::move(result.regions), {n});
    return out;
  }

 private:
  static py::dict decisions(const Decisions& taken) {
    py::dict out;
    out["filter"] = taken.filter;
    out["exact"] = taken.exact;
    out["zeros"] = taken.zeros;
    return out;
  }
  static std::vector<ExactStage> stages(const std::vector<ExactStageTuple>& tuples) {
    std::vector<ExactStage> out;
    for (const auto& [rows, blocks, bias, line_begin, kinks, slopes, intercepts, denominator] : tuples) {
      ExactStage stage{rows,
                       {},
                       at<double>(bias),
                       at<int64_t>(line_begin),
                       at<double>(kinks),
                       at<double>(slopes),
                       at<double>(intercepts),
                       denominator};
      for (const auto& [source, weight] : blocks) stage.blocks.push_back({source, at<double>(weight)});
      out.push_back(stage);
    }
    return out;
  }

  TraceNetwork network_;
};
}  // namespace

void bind_trace(py::module_& m) {
  py::class_<TraceProblem>(m, "TraceProblem")
      .def(py::init<const std::vector<ExactStageTuple>&, const std::vector<std::vector<double>>&, int64_t>(),
           py::arg("stages"), py::arg("norms"), py::arg("dimensions"))
      .def("trace", &TraceProblem::trace, py::arg("starts"), py::arg("ends"), py::arg("n"), py::arg("maps"),
           py::arg("force_exact"), py::arg("one_window"), py::arg("threads"), py::arg("report"))
      .def("arms", &TraceProblem::arms, py::arg("centres"), py::arg("radii"), py::arg("n"), py::arg("directions"),
           py::arg("n_directions"), py::arg("own_directions"), py::arg("force_exact"), py::arg("threads"),
           py::arg("report"));
}

}  // namespace pylinregion
