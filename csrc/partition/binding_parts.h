// csrc/partition/binding_parts.h -- what the bindings of the slice engine and of tracing share.
#pragma once
#include <pybind11/numpy.h>

#include <condition_variable>
#include <exception>
#include <mutex>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include "deep_thread.h"
#include "digit_network.h"

namespace pylinregion {
namespace {
namespace py = pybind11;
using Address = std::uintptr_t;  // of NumPy arrays that the caller keeps alive

template <class T> T* at(Address address) { return reinterpret_cast<T*>(address); }

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

using ExactStageTuple =
    std::tuple<int64_t, std::vector<std::pair<int64_t, Address>>, Address, Address, Address, Address, Address, double>;

inline std::vector<ExactStage> exact_stages_of(const std::vector<ExactStageTuple>& tuples) {
  std::vector<ExactStage> stages;
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
    stages.push_back(stage);
  }
  return stages;
}

// Runs `work` on a thread with a stack of this size, without the GIL. Meanwhile signals are heard and report(done) is
// called, about twenty times a second; an interrupt or an error of `report` sets `stop`, and is raised after the work.
template <class Work> void run_reporting(size_t stack, const py::object& report, const std::atomic<int64_t>& done,
                                         std::atomic<bool>& stop, const Work& work) {
  std::exception_ptr error;
  std::mutex mutex;
  std::condition_variable ready;
  bool ended = false, interrupted = false;
  std::optional<DeepThread> worker(std::in_place, stack, [&] {
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
  worker.reset();  // joins
  if (interrupted) throw py::error_already_set();
  if (error) std::rethrow_exception(error);
}

}  // namespace
}  // namespace pylinregion
