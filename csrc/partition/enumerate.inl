// csrc/partition/enumerate.inl -- the engine on one thread or several, compiled once per instruction set. The includer
// defines PLR_ENUMERATE (the function's name).
#include <atomic>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>

#include "engine.h"
#include "outside.h"

// The text of the engine, for this machine:
#include "engine_members.inl"

namespace pylinregion {
namespace {

// What it has found since it was asked last.
template <class Walk> Found found_by(Walk& walk, Outside& outside) {
  Found found = outside.take_found();
  found.result.decisions = walk.take_decisions();
  return found;
}

struct Task {
  Cell cell;
  std::vector<uint8_t> on;
};
// Cells that so many cuts lie above are put off, as tasks for other walks, in order. They point to what this walk has
// made, so all of its memory stays.
class PutsOff {
 public:
  static constexpr bool kKeepsMemory = true;
  PutsOff(const System& system, Outside& outside, int64_t depth)
      : outside_(outside), lines_(padded(system.lines)), depth_(depth) {}
  template <class Walk> bool puts_off(Walk& walk, const Cell& cell, int64_t depth) {
    if (depth < depth_) return false;
    before.push_back(found_by(walk, outside_));
    tasks.push_back({cell, {walk.on(), walk.on() + lines_}});
    return true;
  }
  template <class Walk> void puts_off_open(Walk&, const Cell&, Next) {}

  std::vector<Task> tasks;
  std::vector<Found> before;  // before[i] comes before task i

 private:
  Outside& outside_;
  const int64_t lines_, depth_;
};

void add_counts(EngineResult& to, const EngineResult& more) {
  to.regions.resize(std::max(to.regions.size(), more.regions.size()), 0);
  for (size_t l = 0; l < to.regions.size(); ++l) to.regions[l] += more.regions[l];
  to.decisions.filter += more.decisions.filter;
  to.decisions.exact += more.decisions.exact;
  to.decisions.zeros += more.decisions.zeros;
  to.decisions.folds += more.decisions.folds;
  for (const auto counts : {&EngineResult::pieces, &EngineResult::zero_along, &EngineResult::zero_at}) {
    (to.*counts).resize(std::max((to.*counts).size(), (more.*counts).size()), 0);
    for (size_t i = 0; i < (more.*counts).size(); ++i) (to.*counts)[i] += (more.*counts)[i];
  }
  to.sides.resize(std::max(to.sides.size(), more.sides.size()), 0);
  for (size_t line = 0; line < more.sides.size(); ++line) to.sides[line] |= more.sides[line];
}

// What a walk has found in its order: before[i], then of_task[i], which workers finish in any order. Cells are given
// away by whoever finishes a task, while the others go on.
class InOrder {
 public:
  InOrder(CellSink* sink, std::vector<Found> before)
      : of_task(before.size()), sink_(sink), before_(std::move(before)), finished_(of_task.size()) {}
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
  EngineResult take(Found last) {
    give_away();
    give(last);
    return std::move(sum_);
  }
  std::vector<Found> of_task;

 private:
  void give_away() {
    for (; first_ < of_task.size(); ++first_) {
      give(before_[first_]);
      if (!finished_[first_].load(std::memory_order_acquire)) return;
      give(of_task[first_]);
    }
  }
  void give(Found& found) {
    if (!found.waits) return;              // it was given away before
    const Found taken = std::move(found);  // its memory is given back before the next one's is read
    found.waits = false;
    add_counts(sum_, taken.result);
    if (sink_) sink_->add(taken.cells);
  }

  CellSink* const sink_;
  std::vector<Found> before_;
  std::vector<std::atomic<bool>> finished_;
  std::mutex mutex_;
  size_t first_ = 0;  // task that has not been given away
  EngineResult sum_;
};

// Keeps those of the tasks, with what comes before each, that one part of the walk has.
void keep_part(const EngineOptions& options, PutsOff& put_off) {
  std::vector<Task>& tasks = put_off.tasks;
  std::vector<Found>& before = put_off.before;
  const int64_t n = static_cast<int64_t>(tasks.size());
  const int64_t begin = n * options.part / options.parts, end = n * (options.part + 1) / options.parts;
  tasks.erase(tasks.begin() + end, tasks.end()), tasks.erase(tasks.begin(), tasks.begin() + begin);
  before.erase(before.begin() + end, before.end()), before.erase(before.begin(), before.begin() + begin);
}

// What is shared by the walks along a slice, and what it points to.
struct SharedOwner {
  SharedOwner(const System& system, const EngineOptions& options);
  SharedOwner(const SharedOwner&) = delete;

  std::vector<int32_t> row_numbers;
  std::vector<uint8_t> has_groups;
  Shared shared;
};

SharedOwner::SharedOwner(const System& system, const EngineOptions& options)
    : row_numbers(static_cast<size_t>(system.rows + kLanes)), shared{system, options, nullptr, nullptr, 0, 0, 0, 0, 0} {
  for (size_t r = 0; r < row_numbers.size(); ++r) row_numbers[r] = static_cast<int32_t>(r);
  const int32_t* lines = system.line ? system.line : row_numbers.data();
  for (const StageView& stage : system.stages)
    has_groups.push_back(stage.begin < stage.end && system.groups.of_line[lines[stage.begin]] >= 0);
  shared.row_numbers = row_numbers.data(), shared.has_groups = has_groups.data();
  find_extents(shared);
}

EngineResult walk_alone(const Shared& shared, EngineProgress& progress, const ExactRows& exact) {
  Outside outside(shared, progress, exact);
  outside.ask_for_turn([] { return true; });
  WalksAll all;
  Walk<WalksAll> walk(shared, outside, all);
  walk.from_root();
  outside.report();
  if (shared.options.cells) outside.give_away();
  return found_by(walk, outside).result;
}

// Cuts above a task: enough tasks for all threads and parts; more would fold again what one fold can.
int64_t task_depth(const EngineOptions& options) {
  int64_t depth = 5;
  while ((int64_t{1} << (depth - 5)) < options.threads * options.parts) ++depth;
  return depth;
}

EngineResult walk_in_tasks(const Shared& shared, EngineProgress& progress, const ExactRows& exact) {
  const EngineOptions& options = shared.options;
  Outside at_root(shared, progress, exact);
  at_root.ask_for_turn([] { return false; });
  PutsOff put_off(shared.system, at_root, task_depth(options));
  Walk<PutsOff> root(shared, at_root, put_off);  // its memory is read until the tasks are done
  root.from_root();
  at_root.report();
  Found last = found_by(root, at_root);
  last.waits = options.part + 1 == options.parts;
  keep_part(options, put_off);
  const std::vector<Task>& tasks = put_off.tasks;
  InOrder found(options.cells, std::move(put_off.before));
  std::atomic<size_t> next{0};
  std::vector<std::exception_ptr> errors(static_cast<size_t>(options.threads));
  const auto work = [&](size_t worker) {
    try {
      Outside outside(shared, progress, exact);
      WalksAll all;
      Walk<WalksAll> walk(shared, outside, all);
      for (size_t i; (i = next++) < tasks.size();) {
        outside.ask_for_turn([&found, i] { return found.is_first(i); });
        walk.from(tasks[i].cell, tasks[i].on.data(), Next::go_down);
        outside.report();
        found.of_task[i] = found_by(walk, outside);
        found.finish(i);
      }
    } catch (...) {
      errors[worker] = std::current_exception();
      progress.stop = true;
    }
  };
  std::vector<std::thread> threads;
  for (size_t i = 1; i < static_cast<size_t>(options.threads) && i < tasks.size(); ++i) {
    try {
      threads.emplace_back(work, i);
    } catch (const std::system_error&) {
      break;  // the system gives no more threads: these do all the work
    }
  }
  work(0);
  for (std::thread& thread : threads) thread.join();
  for (const std::exception_ptr& error : errors)
    if (error) std::rethrow_exception(error);
  return found.take(std::move(last));
}

}  // namespace

EngineResult PLR_ENUMERATE(const System& system, const EngineOptions& options, const ExactRows& exact,
                           EngineProgress& progress) {
  const SharedOwner owner(system, options);
  const bool alone = options.threads <= 1 && options.parts == 1;
  EngineResult result =
      alone ? walk_alone(owner.shared, progress, exact) : walk_in_tasks(owner.shared, progress, exact);
  result.stopped = progress.stop;
  return result;
}

}  // namespace pylinregion
