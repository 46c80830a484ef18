// csrc/partition/walk_tasks.cuh -- the kernels of walk_slices.cu: a warp walks from a task, and puts off what others
// may do.
#pragma once
#include "engine.h"
#include "outside_warp.h"
#include "warp_tasks.h"

// The text of the engine, for this machine:
#include "engine_members.inl"

namespace pylinregion {
namespace {

constexpr int kThreads = 128;  // of a block: four warps, which know nothing of each other
constexpr int kWarps = kThreads / 32;

// Slices as the device has them, one behind the other, and where it counts.
struct DeviceSlices {
  int64_t slices, stages, n_corners;
  const System* systems;       // [slices], which point to memory of the device
  const int32_t* row_numbers;  // 0, 1, 2 ...: as many as a slice has rows, and kLanes
  const uint8_t* has_groups;   // [slices, stages]
  EngineOptions options;       // cells: not null if they are kept

  Shared* shared;             // [slices]
  WarpTask* roots;            // [slices]; without a cell: there is nothing to walk along
  const int64_t* first_root;  // [slices + 1]: into root_memory
  char* root_memory;          // what the roots point to
  Persistent persistent;

  // Sums over all that is done.
  unsigned long long* regions;                        // [slices, stages]
  uint32_t* sides;                                    // four rows each; those of a slice begin at first_side
  const int64_t* first_side;                          // [slices + 1]
  unsigned long long* decisions;                      // [slices, 4]
  unsigned long long *pieces, *zero_along, *zero_at;  // if options.pieces; see SliceCounts
};

// What one launch has to do, and what it leaves.
struct Launch {
  const WarpTask* tasks;
  const int64_t* todo;  // [n_todo] of these
  int64_t n_todo;
  int64_t first_number;      // of the tasks, among those of all attempts
  unsigned long long* next;  // of these, that no warp has taken
  WalkOutcome* outcomes;     // [tasks]
  const volatile int32_t* stop;
  int64_t steps;  // cells that a walk puts none off before

  int64_t warps;  // that walk; the others have no memory
  char* memory;   // of all warps
  int64_t bytes;  // that one has

  // What is put off, and by which task; what is asked for it.
  char* kept;
  int64_t kept_bytes;
  unsigned long long* kept_used;
  WarpTask* put_off;  // [most_put_off]
  int64_t* put_off_by;
  int64_t most_put_off;
  LogMemory log;
  unsigned long long* n_put_off;
  Request* requests;  // [most_requests]
  int64_t most_requests;
  unsigned long long* n_requests;
};

// --- roots ---

__device__ Shared shared_of(const DeviceSlices& given, int64_t slice) {
  Shared shared{
      given.systems[slice], given.options, given.row_numbers, given.has_groups + slice * given.stages, 0, 0, 0, 0, 0};
  find_extents(shared);
  return shared;
}

// Counters of a slice, that a walk adds to when it is done.
PLR_STEP Tally tally_in(Arena& memory, const DeviceSlices& given, int64_t lines) {
  const int64_t stages = given.stages, n = given.n_corners;
  Tally tally{memory.take<int64_t>(stages), memory.take<uint8_t>(padded(lines)), nullptr, nullptr, nullptr};
  fill(tally.regions, stages, int64_t{0}), fill(tally.sides, padded(lines), uint8_t{0});
  if (given.options.pieces) {
    tally.pieces = memory.take<int64_t>(stages * n);
    tally.zero_along = memory.take<int64_t>(n), tally.zero_at = memory.take<int64_t>(n);
    fill(tally.pieces, stages * n, int64_t{0});
    fill(tally.zero_along, n, int64_t{0}), fill(tally.zero_at, n, int64_t{0});
  }
  return tally;
}
PLR_STEP void add_tally(const DeviceSlices& given, int64_t slice, const Tally& tally, const Decisions& by) {
  const int64_t stages = given.stages, n = given.n_corners;
  const auto add = [](unsigned long long* to, const int64_t* from, int64_t count) {
    each(count, [&](int64_t i) {
      if (from[i]) atomicAdd(to + i, static_cast<unsigned long long>(from[i]));
    });
  };
  add(given.regions + slice * stages, tally.regions, stages);
  if (given.options.pieces) {
    add(given.pieces + slice * stages * n, tally.pieces, stages * n);
    add(given.zero_along + slice * n, tally.zero_along, n), add(given.zero_at + slice * n, tally.zero_at, n);
  }
  uint32_t* const sides = given.sides + given.first_side[slice];
  each(given.first_side[slice + 1] - given.first_side[slice], [&](int64_t i) {
    uint32_t four = 0;
    for (int byte = 0; byte < 4; ++byte) four |= uint32_t{tally.sides[4 * i + byte]} << (8 * byte);
    if (four) atomicOr(sides + i, four);
  });
  if (!leads()) return;
  const int64_t decisions[] = {by.filter, by.exact, by.zeros, by.folds};
  for (int i = 0; i < 4; ++i)
    if (decisions[i]) atomicAdd(given.decisions + 4 * slice + i, static_cast<unsigned long long>(decisions[i]));
}

// Of one slice, in memory that stays.
__device__ void make_root(const DeviceSlices& given, int64_t slice) {
  WalkOutcome enough = WalkOutcome::none;
  Arena memory(given.root_memory + given.first_root[slice], given.first_root[slice + 1] - given.first_root[slice],
               &enough);
  const Shared shared = shared_of(given, slice);
  put(given.shared[slice], shared);
  const Tally tally = tally_in(memory, given, shared.system.lines);
  WarpTask task{slice, nullptr, nullptr, nullptr, 0, 0};
  Cell* const kept = memory.take<Cell>(1);
  Outside outside(memory, tally, task, given.shared[slice], nullptr, nullptr, &enough);
  WalksAll all;
  Walk<WalksAll> walk(given.shared[slice], outside, all);
  Cell root;
  if (walk.root(root)) {
    put(*kept, root);
    task.cell = kept, task.on = walk.on();
  }
  add_tally(given, slice, tally, walk.take_decisions());  // stages without lines
  put(given.roots[slice], task);
}

__global__ void __launch_bounds__(kThreads) make_roots_kernel(DeviceSlices given) {
  const int64_t warps = int64_t{gridDim.x} * kWarps;
  for (int64_t slice = (int64_t{blockIdx.x} * kThreads + threadIdx.x) / 32; slice < given.slices; slice += warps)
    make_root(given, slice);
}

// --- walks ---

// Once a walk has done its steps, all cells that are left are put off: one that a warp has walked on its own would keep
// others waiting. So is one where a decision is open.
class PutsOff {
 public:
  static constexpr bool kKeepsMemory = false;
  __device__ PutsOff(const DeviceSlices& given, const Launch& launch, int64_t number, Outside& outside)
      : launch_(launch),
        number_(number),
        slice_(launch.tasks[number].slice),
        lines_(given.shared[slice_].system.lines),
        outside_(outside),
        copier_(given.persistent, given.stages, lines_),
        left_(launch.steps) {}

  template <class Walk> __device__ bool puts_off(Walk& walk, const Cell& cell, int64_t) {
    if (left_ > 0) {
      --left_;
      return false;
    }
    return keep(walk, cell, Next::go_down) >= 0;  // without room the walk goes on
  }
  template <class Walk> PLR_STEP void puts_off_open(Walk& walk, const Cell& cell, Next next) {
    int64_t n;
    const Question* const asked = outside_.asked(n);
    const int64_t task = keep(walk, cell, next);
    const int64_t first = static_cast<int64_t>(take_number(launch_.n_requests, static_cast<unsigned long long>(n)));
    if (task < 0 || first + n > launch_.most_requests) end_walk(launch_.outcomes + number_, WalkOutcome::no_memory);
    each(n, [&](int64_t i) { launch_.requests[first + i] = {task, asked[i]}; });
  }

 private:
  // Its number among those that are put off; -1: there is no room.
  template <class Walk> PLR_STEP int64_t keep(Walk& walk, const Cell& cell, Next next) {
    const int64_t bytes = copier_.bytes(cell);
    const int64_t at = static_cast<int64_t>(take_number(launch_.kept_used, static_cast<unsigned long long>(bytes)));
    if (at + bytes > launch_.kept_bytes) return -1;
    const int64_t task = static_cast<int64_t>(take_number(launch_.n_put_off, 1));
    if (task >= launch_.most_put_off) return -1;
    Arena memory(launch_.kept + at, bytes, launch_.outcomes + number_);
    WarpTask kept{slice_, nullptr, nullptr, nullptr, 0, static_cast<int32_t>(next)};
    copier_.copy_cell(cell, walk.on(), memory, kept);
    put(launch_.put_off[task], kept);
    put(launch_.put_off_by[task], launch_.first_number + number_);
    if (outside_.log()) outside_.log()->put_off(task);
    return task;
  }

  const Launch& launch_;
  const int64_t number_, slice_, lines_;
  Outside& outside_;
  const CellCopier copier_;
  int64_t left_;
};

__device__ void walk_from(const DeviceSlices& given, const Launch& launch, int64_t number, char* memory) {
  WalkOutcome* const outcome = launch.outcomes + number;
  const WarpTask task = launch.tasks[number];
  const Shared& shared = given.shared[task.slice];
  Arena arena(memory, launch.bytes, outcome);
  const Tally tally = tally_in(arena, given, shared.system.lines);
  CellLog log(launch.log, launch.first_number + number, outcome);
  Outside outside(arena, tally, task, shared, log.is_kept() ? &log : nullptr, launch.stop, outcome);
  PutsOff policy(given, launch, number, outside);
  Walk<PutsOff> walk(shared, outside, policy);
  walk.from(*task.cell, task.on, static_cast<Next>(task.next));
  log.end();
  sync();
  add_tally(given, task.slice, tally, walk.take_decisions());
  put(*outcome, WalkOutcome::done);
}

__global__ void __launch_bounds__(kThreads) walk_slices_kernel(DeviceSlices given, Launch launch) {
  const int64_t warp = (int64_t{blockIdx.x} * kThreads + threadIdx.x) / 32;
  if (warp >= launch.warps) return;
  char* const memory = launch.memory + warp * launch.bytes;
  for (;;) {
    const unsigned long long number = take_number(launch.next, 1);
    if (number >= static_cast<unsigned long long>(launch.n_todo)) return;
    walk_from(given, launch, launch.todo[number], memory);
  }
}

}  // namespace
}  // namespace pylinregion
