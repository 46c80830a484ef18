// csrc/partition/walk_slices.cu -- see walk_slices.h. A warp walks along a slice as a thread of the CPU does, with the
// text of the engine (lanes_warp.h): what it counts is the same to the bit, for on both multiply_add rounds once and
// nothing else is fused. Walks are cut into tasks, generation by generation: what one launch puts off, the next does.
#define PLR_WARP
#include <algorithm>
#include <chrono>
#include <stdexcept>
#include <thread>
#include <tuple>
#include <type_traits>
#include <utility>

#include "device_memory.cuh"
#include "walk_slices.h"
#include "walk_tasks.cuh"

namespace pylinregion {
namespace {

constexpr int64_t kFewer = 8;  // times, where walks need more memory
// Steps of walks, before there are tasks for all warps; when there are; and once each has so many that it does not
// matter how long one takes: then more and more.
constexpr int64_t kFewSteps = 4, kSomeSteps = 64;
constexpr int64_t kTasksOfWarp = 16;
constexpr int64_t kMostSteps = int64_t{1} << 40;
constexpr int64_t kBytesOfWarp = 1 << 20;    // if there is so much
constexpr int64_t kLeastBytes = 1 << 22;     // of all warps
constexpr int64_t kBytesOfRoot = 16 << 10;   // what a root takes, besides what is of rows and stages
constexpr int64_t kBytesOfTask = 1 << 10;    // at least
constexpr int64_t kBytesOfRequest = 1 << 8;  // for each that there is room for
constexpr int64_t kBytesOfPiece = 1 << 9;    // of a log, at least
constexpr int64_t kLikelyCorners = 5;
constexpr int64_t kLooks = 200;        // at a kernel that may end soon, before others get the processor
constexpr int64_t kOfAllAttempts = 3;  // counters from here on
constexpr int64_t kCounters = 6;

// Slices of a network on the device.
class SlicesOnDevice {
 public:
  SlicesOnDevice(const std::vector<System>& systems, const EngineOptions& options, EngineProgress& progress,
                 const Ask& ask);
  void walk();
  WalkedSlices found();

 private:
  // What is left to do.
  struct Tasks {
    std::vector<WarpTask> tasks;
    std::vector<std::vector<Answer>> known;  // of each, what integers have said on the way to it
    std::vector<int64_t> walks;              // of each, its number among those whose cells are kept
    DeviceArray<Answer> answers;
  };
  // Tasks that are done, in which attempt; -1: none.
  using DoneIn = std::vector<int64_t>;

  void upload();
  System packed(const System& system, Packed& in);
  System on_device(const System& packed, const char* base) const;
  void make_roots();
  void take_memory();
  Tasks next(const Tasks& now);
  DoneIn attempt_all(const Tasks& now, const CellsOfWalks::Later& children);
  void run(const std::vector<int64_t>& todo);
  void keep_cells(const Tasks& now, const DoneIn& done_in, int64_t attempt, const CellsOfWalks::Later& children);
  int64_t most_steps(int64_t tasks) const;
  void tell();
  void ask(Tasks& tasks, size_t number, const std::vector<Request>& asked);
  static void upload_answers(Tasks& tasks);
  void leave(int64_t slice) { outcomes_[static_cast<size_t>(slice)] = WalkOutcome::open; }
  bool is_left(int64_t slice) const { return outcomes_[static_cast<size_t>(slice)] != WalkOutcome::none; }

  const std::vector<System>& systems_;
  const EngineOptions& options_;
  EngineProgress& progress_;
  const Ask& ask_;
  const int64_t slices_, stages_, corners_, pieces_;
  std::vector<int64_t> first_row_{0}, first_side_{0};  // of slices
  std::vector<WalkOutcome> outcomes_;  // of slices: none while they are walked along, open if the CPU will do it
  std::vector<int64_t> walks_;         // of slices
  CellsOfWalks cells_;
  DeviceSlices given_{};
  Launch launch_{};
  StopFlag stop_;
  DeviceArray<char> inputs_;
  DeviceArray<unsigned long long> counts_, counters_;
  DeviceArray<uint32_t> sides_;
  DeviceArray<char> workspace_, log_;
  DeviceArray<char> kept_[2];  // of the tasks that are done, and of those that they put off
  DeviceArray<WarpTask> put_off_;
  DeviceArray<int64_t> put_off_by_;
  DeviceArray<Request> requests_;
  DeviceArray<LogPiece> log_pieces_;
  int64_t most_warps_ = 0;
  int64_t told_ = 0;      // of progress_.regions
  int64_t halvings_ = 0;  // of the memory that was asked for
};

SlicesOnDevice::SlicesOnDevice(const std::vector<System>& systems, const EngineOptions& options,
                               EngineProgress& progress, const Ask& ask)
    : systems_(systems),
      options_(options),
      progress_(progress),
      ask_(ask),
      slices_(static_cast<int64_t>(systems.size())),
      stages_(systems.front().stages.count),
      corners_(systems.front().n_corners),
      pieces_(options.pieces ? slices_ * corners_ : 0),
      outcomes_(systems.size(), WalkOutcome::none) {
  upload();
  make_roots();
}

// Where a pointer of a system goes, as it is packed: its place, and 1, for 0 is none.
template <class T> const T* placed(size_t place) { return reinterpret_cast<const T*>(place + 1); }
template <class T> void move_to(const T*& pointer, const char* base) {
  if (pointer) pointer = reinterpret_cast<const T*>(base + (reinterpret_cast<size_t>(pointer) - 1));
}

// A system with what it points to in memory of the device; the pointers are places there.
System SlicesOnDevice::packed(const System& of, Packed& in) {
  System to = of;
  const auto add = [&](auto& pointer, const auto* from, int64_t n) {
    using T = std::remove_cv_t<std::remove_reference_t<decltype(*from)>>;
    if (from) pointer = placed<T>(in.add(from, n));
  };
  std::vector<StageView> views;
  for (const StageView& stage : of.stages) {
    StageView view = stage;
    const int64_t width = stage.extent - stage.end;
    view.stride = width + kLanes;  // with zeros behind the numbers, as many as a warp has lanes
    const size_t at = in.add<double>((stage.end - stage.begin) * view.stride + kLanes);
    for (int64_t t = 0; t < stage.end - stage.begin; ++t)
      in.put(at + static_cast<size_t>(t * view.stride) * sizeof(double), stage.columns + t * stage.stride, width);
    view.columns = placed<double>(at);
    views.push_back(view);
  }
  to.stages.first = placed<StageView>(in.add(views));
  add(to.numbers, of.numbers, of.rows), add(to.on, of.on, of.lines), add(to.zero, of.zero, of.lines);
  add(to.a, of.a, of.rows), add(to.b, of.b, of.rows), add(to.c, of.c, of.rows), add(to.error, of.error, of.rows);
  add(to.norms, of.norms, 2 * stages_ * stages_);
  add(to.corners, of.corners, 2 * corners_), add(to.borders, of.borders, 4 * corners_);
  return to;
}

// The same with pointers.
System SlicesOnDevice::on_device(const System& packed, const char* base) const {
  System to = packed;
  move_to(to.stages.first, base), move_to(to.numbers, base), move_to(to.on, base), move_to(to.zero, base);
  move_to(to.a, base), move_to(to.b, base), move_to(to.c, base), move_to(to.error, base);
  move_to(to.norms, base), move_to(to.corners, base), move_to(to.borders, base);
  move_to(to.groups.of_line, base), move_to(to.groups.ranges, base), move_to(to.groups.first_pair, base);
  return to;
}

void SlicesOnDevice::upload() {
  Packed in;
  std::vector<System> systems;
  std::vector<int64_t> first_root{0};
  std::vector<uint8_t> has_groups;
  GroupTable groups = systems_.front().groups;
  if (groups.groups) {
    groups.of_line = placed<int32_t>(in.add(groups.of_line, groups.lines));
    groups.ranges = placed<GroupTable::Range>(in.add(groups.ranges, groups.groups));
    groups.first_pair = placed<int64_t>(in.add(groups.first_pair, groups.groups + 1));
  } else {
    groups = {groups.lines, 0, nullptr, nullptr, nullptr};
  }
  int64_t most_rows = 0;
  for (const System& system : systems_) {
    systems.push_back(packed(system, in));
    systems.back().groups = groups;
    most_rows = std::max(most_rows, system.rows);
    for (const StageView& stage : system.stages)
      has_groups.push_back(stage.begin < stage.end && system.groups.of_line[system.number_of(stage.begin)] >= 0);
    first_row_.push_back(first_row_.back() + system.rows);
    first_side_.push_back(first_side_.back() + (system.rows + 3) / 4);
    const int64_t of_root =
        kBytesOfRoot + 64 * (system.rows + 3 * kLanes) + (160 + 8 * corners_) * (stages_ + 8) + 512 * corners_;
    first_root.push_back(first_root.back() + of_root / 64 * 64);
  }
  std::vector<int32_t> row_numbers(static_cast<size_t>(most_rows + kLanes));
  for (size_t r = 0; r < row_numbers.size(); ++r) row_numbers[r] = static_cast<int32_t>(r);

  const size_t all = in.add(systems), numbers = in.add(row_numbers), with_groups = in.add(has_groups);
  const size_t sides = in.add(first_side_), root = in.add(first_root);
  const size_t shared = in.add<Shared>(slices_);
  const size_t roots =
      in.add(std::vector<WarpTask>(static_cast<size_t>(slices_), WarpTask{-1, nullptr, nullptr, nullptr, 0, 0}));
  const size_t memory = in.add<char>(first_root.back());
  inputs_ = DeviceArray<char>(in.size());
  char* const base = inputs_.get();
  for (size_t i = 0; i < systems.size(); ++i) {
    systems[i] = on_device(systems[i], base);
    const StageView* const views = systems_[i].stages.first;
    StageView* const kept =
        in.at<StageView>(static_cast<size_t>(reinterpret_cast<const char*>(systems[i].stages.first) - base));
    for (int64_t l = 0; views && l < stages_; ++l) move_to(kept[l].columns, base);
  }
  in.put(all, systems.data(), slices_);
  inputs_.set(in.bytes());
  const auto at = [&](size_t place, auto type) { return reinterpret_cast<decltype(type)*>(base + place); };

  given_.slices = slices_, given_.stages = stages_, given_.n_corners = corners_;
  given_.systems = at(all, systems_.front());
  given_.row_numbers = at(numbers, int32_t{}), given_.has_groups = at(with_groups, uint8_t{});
  given_.options = options_;
  given_.options.changes = true;
  given_.shared = reinterpret_cast<Shared*>(base + shared), given_.roots = at(roots, WarpTask{});
  given_.first_root = at(root, int64_t{}), given_.root_memory = at(memory, char{});
  given_.persistent = {base, base + in.size()};

  const int64_t n = slices_ * stages_;
  counts_ = DeviceArray<unsigned long long>(
      std::vector<unsigned long long>(static_cast<size_t>(n + 4 * slices_ + pieces_ * (stages_ + 2)), 0));
  sides_ = DeviceArray<uint32_t>(std::vector<uint32_t>(static_cast<size_t>(first_side_.back()), 0));
  given_.regions = counts_.get(), given_.decisions = given_.regions + n;
  given_.pieces = given_.decisions + 4 * slices_, given_.zero_along = given_.pieces + pieces_ * stages_;
  given_.zero_at = given_.zero_along + pieces_;
  given_.sides = sides_.get(), given_.first_side = at(sides, int64_t{});
}

void SlicesOnDevice::make_roots() {
  const auto blocks = static_cast<unsigned>(std::min<int64_t>((slices_ + kWarps - 1) / kWarps, 65535));
  make_roots_kernel<<<blocks, kThreads, 0, nullptr>>>(given_);
  PLR_CUDA_CHECK_KERNEL(make_roots_kernel, cudaGetLastError());
  PLR_CUDA_CHECK_KERNEL(make_roots_kernel, cudaStreamSynchronize(nullptr));
}

// What is free, in part, or what all warps can use.
void SlicesOnDevice::take_memory() {
  int resident = 0;
  PLR_CUDA_CHECK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&resident, walk_slices_kernel, kThreads, 0));
  most_warps_ = std::max<int64_t>(1, int64_t{resident} * attribute(cudaDevAttrMultiProcessorCount) * kWarps);
  size_t free_bytes = 0, all_bytes = 0;
  PLR_CUDA_CHECK(cudaMemGetInfo(&free_bytes, &all_bytes));
  for (int64_t bytes = std::min(static_cast<int64_t>(free_bytes / 4), most_warps_ * kBytesOfWarp);; bytes /= 2) {
    try {
      workspace_ = DeviceArray<char>(bytes);
      for (DeviceArray<char>& kept : kept_) kept = DeviceArray<char>(bytes / 2);
      if (options_.cells) log_ = DeviceArray<char>(bytes / 2);
      break;
    } catch (const std::runtime_error&) {
      workspace_ = DeviceArray<char>();
      for (DeviceArray<char>& kept : kept_) kept = DeviceArray<char>();
      if (bytes < kLeastBytes) throw;
      ++halvings_;
    }
  }
  launch_.memory = workspace_.get();
  launch_.log.memory = log_.get(), launch_.log.bytes = log_.size();
  launch_.log.most_pieces = log_.size() / kBytesOfPiece;
  log_pieces_ = DeviceArray<LogPiece>(launch_.log.most_pieces);
  launch_.log.pieces = log_pieces_.get();
  const int64_t kept = kept_[0].size();
  launch_.most_put_off = std::max<int64_t>(kept / kBytesOfTask, 1);
  put_off_ = DeviceArray<WarpTask>(launch_.most_put_off);
  put_off_by_ = DeviceArray<int64_t>(launch_.most_put_off);
  launch_.most_requests = std::max<int64_t>(kept / kBytesOfRequest, 2 * kMostAsked);
  requests_ = DeviceArray<Request>(launch_.most_requests);
  counters_ = DeviceArray<unsigned long long>(kCounters);
  launch_.kept_bytes = kept;
  launch_.put_off = put_off_.get(), launch_.put_off_by = put_off_by_.get(), launch_.requests = requests_.get();
  launch_.next = counters_.get(), launch_.log.used = launch_.next + 1, launch_.log.n_pieces = launch_.next + 2;
  launch_.kept_used = launch_.next + kOfAllAttempts;
  launch_.n_put_off = launch_.kept_used + 1, launch_.n_requests = launch_.kept_used + 2;
  launch_.stop = stop_.on_device();
}

// So that what they find fits, in most cases: a step finds a cell, or two.
int64_t SlicesOnDevice::most_steps(int64_t tasks) const {
  if (!options_.cells) return kMostSteps;
  const int64_t of_cell = bytes_of_record(kLikelyCorners, first_row_.back() / slices_);
  return std::max<int64_t>(1, log_.size() / (2 * of_cell * tasks));
}

void SlicesOnDevice::walk() {
  take_memory();
  Tasks tasks;
  const std::vector<WarpTask> roots = [&] {
    std::vector<WarpTask> all(static_cast<size_t>(slices_));
    const cudaError_t copied =
        cudaMemcpy(all.data(), given_.roots, all.size() * sizeof(WarpTask), cudaMemcpyDeviceToHost);
    PLR_CUDA_CHECK(copied);
    return all;
  }();
  for (int64_t i = 0; i < slices_; ++i) {
    const WarpTask& root = roots[static_cast<size_t>(i)];
    walks_.push_back(cells_.add_walk());
    if (root.slice < 0 || (options_.cells && !root.cell)) leave(i);  // it was not made; its one cell was not kept
    if (!root.cell) continue;
    tasks.tasks.push_back(root);
    tasks.walks.push_back(walks_.back());
  }
  tasks.known.resize(tasks.tasks.size());
  int64_t many_steps = kSomeSteps;
  while (!tasks.tasks.empty() && !progress_.stop) {
    const int64_t n = static_cast<int64_t>(tasks.tasks.size());
    int64_t steps = n < most_warps_ ? kFewSteps : kSomeSteps;
    if (n >= kTasksOfWarp * most_warps_) {
      steps = many_steps;
      many_steps = std::min(16 * many_steps, kMostSteps);
    }
    launch_.steps = std::min(steps, most_steps(n));
    tasks = next(tasks);
  }
}

// Does all tasks, and returns those that they put off.
SlicesOnDevice::Tasks SlicesOnDevice::next(const Tasks& now) {
  const int64_t n = static_cast<int64_t>(now.tasks.size());
  Tasks later;
  std::swap(kept_[0], kept_[1]);
  launch_.kept = kept_[1].get();
  const size_t bytes = static_cast<size_t>(put_off_by_.size()) * sizeof(int64_t);
  PLR_CUDA_CHECK(cudaMemset(put_off_by_.get(), 0xff, bytes));  // by none
  counters_.set(std::vector<unsigned long long>(kCounters, 0));
  const auto children = std::make_shared<std::vector<int64_t>>();
  const DoneIn done_in = attempt_all(now, children);
  if (progress_.stop) return later;
  for (size_t i = 0; i < done_in.size(); ++i)
    if (done_in[i] < 0) leave(now.tasks[i].slice);
  tell();

  const std::vector<unsigned long long> counters = counters_.numbers();
  const int64_t kept = std::min(static_cast<int64_t>(counters[kOfAllAttempts + 1]), launch_.most_put_off);
  const std::vector<WarpTask> all = put_off_.numbers(kept);
  const std::vector<int64_t> by = put_off_by_.numbers(kept);
  const std::vector<Request> asked =
      requests_.numbers(std::min(static_cast<int64_t>(counters[kOfAllAttempts + 2]), launch_.most_requests));
  std::vector<std::vector<Request>> of_task(all.size());
  for (const Request& request : asked)
    if (request.task >= 0 && request.task < kept) of_task[static_cast<size_t>(request.task)].push_back(request);
  children->assign(all.size(), -1);
  for (size_t i = 0; i < all.size(); ++i) {
    const int64_t parent = by[i];
    if (parent < 0 || done_in[static_cast<size_t>(parent % n)] != parent / n || is_left(all[i].slice)) continue;
    later.tasks.push_back(all[i]);
    later.known.push_back(now.known[static_cast<size_t>(parent % n)]);
    later.walks.push_back((*children)[i] = cells_.add_walk());
    ask(later, later.tasks.size() - 1, of_task[i]);
  }
  upload_answers(later);
  return later;
}

// Walks that need more memory are left to fewer warps, which have more; those that find too much, to shorter walks.
SlicesOnDevice::DoneIn SlicesOnDevice::attempt_all(const Tasks& now, const CellsOfWalks::Later& children) {
  const size_t n = now.tasks.size();
  const DeviceArray<WarpTask> tasks(now.tasks);
  const DeviceArray<WalkOutcome> outcomes(std::vector<WalkOutcome>(n, WalkOutcome::none));
  launch_.tasks = tasks.get(), launch_.outcomes = outcomes.get();
  DoneIn done_in(n, -1);
  std::vector<int64_t> todo(n);
  for (size_t i = 0; i < n; ++i) todo[i] = static_cast<int64_t>(i);
  int64_t warps = most_warps_;
  for (int64_t attempt = 0; !todo.empty() && !progress_.stop; ++attempt) {
    launch_.warps = std::min(warps, static_cast<int64_t>(todo.size()));
    launch_.bytes = workspace_.size() / launch_.warps / 256 * 256;
    launch_.first_number = attempt * static_cast<int64_t>(n);
    run(todo);
    const std::vector<WalkOutcome> ended = outcomes.numbers();
    std::vector<int64_t> again;
    bool more_memory = false, more_room = false;
    for (const int64_t i : todo) {
      const WalkOutcome how = ended[static_cast<size_t>(i)];
      if (how == WalkOutcome::done) done_in[static_cast<size_t>(i)] = attempt;
      more_memory |= how == WalkOutcome::no_memory, more_room |= how == WalkOutcome::no_room;
      if (how == WalkOutcome::no_memory || how == WalkOutcome::no_room) again.push_back(i);
    }
    if (options_.cells) keep_cells(now, done_in, attempt, children);
    const bool gets_on = again.size() < todo.size();
    if (more_memory && (warps /= kFewer) == 0) break;
    if (more_room && launch_.steps == 1 && !gets_on) break;
    if (more_room) launch_.steps = std::max<int64_t>(launch_.steps / kFewer, 1);
    todo = std::move(again);
  }
  return done_in;
}

// What walks that were done in an attempt have written.
void SlicesOnDevice::keep_cells(const Tasks& now, const DoneIn& done_in, int64_t attempt,
                                const CellsOfWalks::Later& children) {
  const int64_t n = static_cast<int64_t>(now.tasks.size());
  const std::vector<unsigned long long> counters = counters_.numbers();
  std::vector<LogPiece> pieces = log_pieces_.numbers(std::min(static_cast<int64_t>(counters[2]), log_pieces_.size()));
  std::sort(pieces.begin(), pieces.end(),
            [](const LogPiece& p, const LogPiece& q) { return std::tie(p.walk, p.at) < std::tie(q.walk, q.at); });
  const std::vector<char> log = log_.numbers(std::min(static_cast<int64_t>(counters[1]), log_.size()));
  for (const LogPiece& piece : pieces) {
    if (piece.walk < 0 || done_in[static_cast<size_t>(piece.walk % n)] != attempt) continue;
    const size_t task = static_cast<size_t>(piece.walk % n);
    const auto from = log.begin() + piece.at;
    if (!is_left(now.tasks[task].slice)) cells_.add(now.walks[task], {from, from + piece.bytes}, children);
  }
}

// Those who watch; and leaves slices to the CPU that have more regions than they may, or all whose cells take too much:
// it stops where it has counted so many.
void SlicesOnDevice::tell() {
  int64_t sum = 0;
  if (stages_) {
    const std::vector<unsigned long long> regions = counts_.numbers(slices_ * stages_);
    for (int64_t i = 0; i < slices_; ++i) {
      const int64_t own = static_cast<int64_t>(regions[static_cast<size_t>((i + 1) * stages_ - 1)]);
      if (options_.max_regions >= 0 && own > options_.max_regions) leave(i);
      if (options_.max_bytes >= 0 && cells_.bytes() > options_.max_bytes) leave(i);
      if (!is_left(i)) sum += own;
    }
  }
  progress_.regions += sum - told_;
  told_ = sum;
}

// What a launch leaves undone (a warp whose walk ends early is gone) the next does.
void SlicesOnDevice::run(const std::vector<int64_t>& todo) {
  const DeviceArray<int64_t> numbers(todo);
  launch_.todo = numbers.get(), launch_.n_todo = numbers.size();
  counters_.set(std::vector<unsigned long long>(kOfAllAttempts, 0));
  if (const size_t bytes = static_cast<size_t>(log_pieces_.size()) * sizeof(LogPiece))
    PLR_CUDA_CHECK(cudaMemset(log_pieces_.get(), 0xff, bytes));  // of no walk
  const auto blocks = static_cast<unsigned>((launch_.warps + kWarps - 1) / kWarps);
  do {
    walk_slices_kernel<<<blocks, kThreads, 0, nullptr>>>(given_, launch_);
    PLR_CUDA_CHECK_KERNEL(walk_slices_kernel, cudaGetLastError());
    int64_t looks = 0;
    for (cudaError_t state; (state = cudaStreamQuery(nullptr)) != cudaSuccess; ++looks) {
      if (state != cudaErrorNotReady) PLR_CUDA_CHECK_KERNEL(walk_slices_kernel, state);
      if (progress_.stop) stop_.set(1);
      if (looks < kLooks)
        std::this_thread::yield();
      else
        std::this_thread::sleep_for(std::chrono::microseconds(100));
    }
  } while (counters_.numbers(1)[0] < todo.size() && !progress_.stop);
}

// Of a task, what integers say to what it has asked. They have no need to be asked again below it: no line of an
// earlier stage is settled there.
void SlicesOnDevice::ask(Tasks& tasks, size_t number, const std::vector<Request>& asked) {
  if (asked.empty()) return;
  const WarpTask& task = tasks.tasks[number];
  std::vector<uint8_t> on(static_cast<size_t>(systems_[static_cast<size_t>(task.slice)].lines));
  if (!on.empty()) PLR_CUDA_CHECK(cudaMemcpy(on.data(), task.on, on.size(), cudaMemcpyDeviceToHost));
  for (const Request& it : asked)
    tasks.known[number].push_back({it.question, ask_(task.slice, it.question, on.data())});
}

void SlicesOnDevice::upload_answers(Tasks& tasks) {
  std::vector<Answer> all;
  for (const std::vector<Answer>& known : tasks.known) all.insert(all.end(), known.begin(), known.end());
  tasks.answers = DeviceArray<Answer>(all);
  const Answer* next = tasks.answers.get();
  for (size_t i = 0; i < tasks.tasks.size(); ++i) {
    const size_t n = tasks.known[i].size();
    tasks.tasks[i].answers = next, tasks.tasks[i].n_answers = static_cast<int32_t>(n);
    next += n;
  }
}

WalkedSlices SlicesOnDevice::found() {
  WalkedSlices found;
  for (const WalkOutcome outcome : outcomes_)
    found.outcomes.push_back(outcome == WalkOutcome::none ? WalkOutcome::done : outcome);
  const std::vector<unsigned long long> counts = counts_.numbers();
  auto next = counts.begin();
  const auto take = [&](std::vector<int64_t>& to, int64_t n) { to.assign(next, next + n), next += n; };
  take(found.regions, slices_ * stages_), take(found.decisions, slices_ * 4);
  take(found.pieces, pieces_ * stages_), take(found.zero_along, pieces_), take(found.zero_at, pieces_);
  const std::vector<uint32_t> sides = sides_.numbers();
  for (int64_t i = 0; i < slices_; ++i)
    for (int64_t row = 0; row < systems_[static_cast<size_t>(i)].rows; ++row)
      found.sides.push_back(
          static_cast<uint8_t>(sides[static_cast<size_t>(first_side_[i] + row / 4)] >> (8 * (row % 4))));
  found.first_row = std::move(first_row_), found.stages = stages_, found.corners = corners_;
  found.halvings = halvings_;
  found.walks = std::move(walks_), found.cells = std::move(cells_);
  return found;
}

}  // namespace

WalkedSlices walk_slices_cuda(const std::vector<System>& systems, const EngineOptions& options,
                              EngineProgress& progress, const Ask& ask) {
  SlicesOnDevice slices(systems, options, progress, ask);
  slices.walk();
  return slices.found();
}

}  // namespace pylinregion
