// csrc/partition/enumerate.inl -- the engine on one thread or several, compiled once per instruction set. The includer
// defines PLR_ENUMERATE (the function's name).
#include <atomic>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>

#include "deep_thread.h"
#include "engine.h"
// The members of Engine:
#include "chords.inl"
#include "cut.inl"
#include "cut_maxima.inl"
#include "fold.inl"
#include "fold_plan.inl"
#include "norms.inl"
#include "relax_maxima.inl"
#include "rows.inl"
#include "settle.inl"
#include "settle_maxima.inl"
#include "share_names.inl"
#include "signs.inl"
#include "substitute.inl"
#include "walk.inl"
#include "write_cells.inl"

namespace pylinregion {
namespace {

void add_counts(EngineResult& to, const EngineResult& part) {
  to.regions.resize(std::max(to.regions.size(), part.regions.size()), 0);
  for (size_t l = 0; l < to.regions.size(); ++l) to.regions[l] += part.regions[l];
  to.decisions.filter += part.decisions.filter;
  to.decisions.exact += part.decisions.exact;
  to.decisions.zeros += part.decisions.zeros;
  to.decisions.folds += part.decisions.folds;
}

// The parts of the walk in their order: before[i], then done[i], which workers finish in any order. Cells are given
// away by whoever finishes one, while the others go on.
class InOrder {
 public:
  InOrder(CellSink* sink, std::vector<Part> before)
      : done(before.size()), sink_(sink), before_(std::move(before)), finished_(done.size()) {}
  void finish(size_t i) {
    finished_[i].store(true, std::memory_order_release);
    const std::unique_lock<std::mutex> lock(mutex_, std::try_to_lock);
    if (lock) give_away();
  }
  // Whether all before task i has been given away. If so, nothing is until that is finished: its worker may.
  bool is_first(size_t i) {
    const std::unique_lock<std::mutex> lock(mutex_, std::try_to_lock);
    if (!lock) return false;
    give_away();
    return first_ == i;
  }
  // The counts of all, once no worker is left.
  EngineResult take(Part last) {
    give_away();
    give(last);
    return std::move(sum_);
  }
  std::vector<Part> done;

 private:
  void give_away() {
    for (; first_ < done.size(); ++first_) {
      give(before_[first_]);
      if (!finished_[first_].load(std::memory_order_acquire)) return;
      give(done[first_]);
    }
  }
  void give(Part& part) {
    if (!part.found) return;             // it was given away before
    const Part taken = std::move(part);  // its memory is given back before the next one's is read
    part.found = false;
    add_counts(sum_, taken.result);
    if (sink_) sink_->add(taken.cells);
  }

  CellSink* const sink_;
  std::vector<Part> before_;
  std::vector<std::atomic<bool>> finished_;
  std::mutex mutex_;
  size_t first_ = 0;  // task that has not been given away
  EngineResult sum_;
};

// Of all tasks, with what comes before each, those of one part.
void keep_part(const EngineOptions& options, std::vector<Task>& tasks, std::vector<Part>& before) {
  const int64_t n = static_cast<int64_t>(tasks.size());
  const int64_t begin = n * options.part / options.parts, end = n * (options.part + 1) / options.parts;
  tasks.erase(tasks.begin() + end, tasks.end()), tasks.erase(tasks.begin(), tasks.begin() + begin);
  before.erase(before.begin() + end, before.end()), before.erase(before.begin(), before.begin() + begin);
}

}  // namespace

EngineResult PLR_ENUMERATE(const System& system, const EngineOptions& options, const ExactRows& exact,
                           EngineProgress& progress) {
  Shared shared{system, options, progress, 0, 0, 0, 1, 0, 0, 5};
  while ((int64_t{1} << (shared.split_depth - 5)) < options.threads * options.parts) ++shared.split_depth;
  double low[2] = {INFINITY, INFINITY}, high[2] = {-INFINITY, -INFINITY};
  for (int64_t i = 0; i < 2 * system.n_corners; ++i) {
    low[i % 2] = std::min(low[i % 2], system.corners[i]), high[i % 2] = std::max(high[i % 2], system.corners[i]);
    double& most = i % 2 ? shared.ht : shared.hs;
    most = std::max(most, std::fabs(system.corners[i]) * kInflateExtent);
  }
  const double across = system.n_corners > 2 ? std::min(high[0] - low[0], high[1] - low[1]) : high[0] - low[0];
  shared.blur = std::max(kBlur * across, kFinestBlur * (shared.hs + shared.ht));
  for (const StageView& stage : system.stages) shared.widest = std::max(shared.widest, stage.end - stage.begin);
  shared.budget = 8 * shared.widest + 64;
  shared.prepaid = static_cast<double>(shared.budget) * kUnit * kInflateBudget;  // >= gamma of it

  if (options.threads <= 1 && options.parts == 1) {
    Engine engine(shared, exact);
    engine.run_root(nullptr, nullptr);
    EngineResult result = engine.take_result().result;
    result.stopped = progress.stop;
    return result;
  }
  std::vector<Task> tasks;
  std::vector<Part> before;
  Engine root(shared, exact);
  root.run_root(&tasks, &before);
  Part last = root.take_result();  // what came after the last task
  keep_part(options, tasks, before);
  InOrder parts(options.cells, std::move(before));
  std::atomic<size_t> next{0};
  std::vector<std::exception_ptr> errors(static_cast<size_t>(options.threads));
  const auto work = [&](size_t worker) {
    try {
      Engine engine(shared, exact);
      for (size_t i; (i = next++) < tasks.size();) {
        engine.run_task(tasks[i], [&parts, i] { return parts.is_first(i); });
        parts.done[i] = engine.take_result();
        parts.finish(i);
      }
    } catch (...) {
      errors[worker] = std::current_exception();
      progress.stop = true;
    }
  };
  std::vector<std::unique_ptr<DeepThread>> threads;
  for (size_t i = 1; i < static_cast<size_t>(options.threads) && i < tasks.size(); ++i) {
    try {
      threads.push_back(std::make_unique<DeepThread>(stack_for(system.lines), [&work, i] { work(i); }));
    } catch (const std::system_error&) {
      break;  // the system gives no more threads: these do all the work
    }
  }
  work(0);
  threads.clear();  // joins
  for (const std::exception_ptr& error : errors)
    if (error) std::rethrow_exception(error);
  last.found = options.part + 1 == options.parts;
  EngineResult result = parts.take(std::move(last));
  result.stopped = progress.stop;
  return result;
}

}  // namespace pylinregion
