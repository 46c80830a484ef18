// csrc/partition/walk_slices.cu -- see walk_slices.h. A warp walks along a slice as a thread of the CPU does, with the
// text of the engine (lanes_warp.h): what it counts is the same to the bit, for on both multiply_add rounds once and
// nothing else is fused. Walks are cut into tasks, generation by generation: what one launch puts off, the next does.
#define PLR_WARP
#include <algorithm>
#include <chrono>
#include <stdexcept>
#include <thread>
#include <utility>

#include "device_memory.cuh"
#include "walk_slices.h"
#include "walk_tasks.cuh"

namespace pylinregion {
namespace {

constexpr int64_t kFewer = 8;         // times, where walks need more memory
constexpr int64_t kTasksOfWarp = 16;  // so many are enough
constexpr int64_t kFirstSteps = 4;    // of walks, before there are
constexpr int64_t kMostSteps = int64_t{1} << 40;
constexpr int64_t kBytesOfWarp = 1 << 20;    // if there is so much
constexpr int64_t kLeastBytes = 1 << 22;     // of all warps
constexpr int64_t kBytesOfRoot = 16 << 10;   // what a root takes, besides what is of rows and stages
constexpr int64_t kBytesOfTask = 1 << 10;    // at least
constexpr int64_t kBytesOfRequest = 1 << 8;  // for each that there is room for

// Slices of a network on the device.
class SlicesOnDevice {
 public:
  SlicesOnDevice(const SliceSystems& systems, int64_t stages, const EngineOptions& options, const AskIntegers& ask);
  void walk(EngineProgress& progress);
  WalkedSlices found() const;

 private:
  // What is left to do, and in which memory it is.
  struct Tasks {
    std::vector<WarpTask> tasks;
    std::vector<std::vector<Answer>> known;  // of each, what integers have said on the way to it
    DeviceArray<char> memory;
    DeviceArray<Answer> answers;
  };

  void upload(const EngineOptions& options);
  void make_roots();
  void take_memory();
  Tasks next(const Tasks& now, EngineProgress& progress);
  void run(const std::vector<int64_t>& todo, EngineProgress& progress);
  void leave_large();
  void ask(Tasks& tasks, size_t number, const std::vector<Request>& asked);
  static void upload_answers(Tasks& tasks);
  void leave(int64_t slice) { outcomes_[static_cast<size_t>(slice)] = WalkOutcome::open; }
  bool is_left(int64_t slice) const { return outcomes_[static_cast<size_t>(slice)] != WalkOutcome::none; }

  const SliceSystems& systems_;
  const AskIntegers& ask_;
  const int64_t stages_, slices_, corners_, pieces_;
  std::vector<int64_t> first_side_;
  std::vector<WalkOutcome> outcomes_;  // of slices: none while they are walked along, open if the CPU will do it
  DeviceSlices given_{};
  Launch launch_{};
  StopFlag stop_;
  DeviceArray<char> inputs_;
  DeviceArray<unsigned long long> counts_, counters_;
  DeviceArray<uint32_t> sides_;
  DeviceArray<char> workspace_;
  int64_t most_warps_ = 0, bytes_kept_ = 0;
};

SlicesOnDevice::SlicesOnDevice(const SliceSystems& systems, int64_t stages, const EngineOptions& options,
                               const AskIntegers& ask)
    : systems_(systems),
      ask_(ask),
      stages_(stages),
      slices_(systems.slices),
      corners_(systems.n_corners),
      pieces_(options.pieces ? systems.slices * systems.n_corners : 0),
      first_side_{0},
      outcomes_(static_cast<size_t>(systems.slices), WalkOutcome::none) {
  upload(options);
  make_roots();
}

void SlicesOnDevice::upload(const EngineOptions& options) {
  const int64_t rows = systems_.begin[slices_];
  std::vector<double> columns;  // with as many zeros behind them as a warp has lanes
  std::vector<int64_t> first_column, first_root{0};
  const double* from = systems_.columns;
  int64_t most_rows = 0;
  for (int64_t i = 0; i < slices_; ++i) {
    const int64_t n = systems_.begin[i + 1] - systems_.begin[i];
    most_rows = std::max(most_rows, n);
    first_column.push_back(static_cast<int64_t>(columns.size()));
    columns.resize(columns.size() + static_cast<size_t>(n * (n + kLanes)), 0.0);
    double* to = columns.data() + first_column.back();
    for (int64_t row = 0; row < n; ++row, from += n + kColumnPadding, to += n + kLanes) std::copy_n(from, n, to);
    first_side_.push_back(first_side_.back() + (n + 3) / 4);
    const int64_t of_root =
        kBytesOfRoot + 64 * (n + 3 * kLanes) + (160 + 8 * corners_) * (stages_ + 8) + 512 * corners_;
    first_root.push_back(first_root.back() + of_root / 64 * 64);
  }
  columns.resize(columns.size() + kLanes, 0.0);
  std::vector<int32_t> row_numbers(static_cast<size_t>(most_rows + kLanes));
  for (size_t r = 0; r < row_numbers.size(); ++r) row_numbers[r] = static_cast<int32_t>(r);

  Packed in;
  const size_t begin = in.add(systems_.begin, slices_ + 1);
  const size_t stage_begin = in.add(systems_.stage_begin, slices_ * (stages_ + 1));
  const size_t column = in.add(first_column), all_columns = in.add(columns);
  const size_t a = in.add(systems_.a, rows), b = in.add(systems_.b, rows), c = in.add(systems_.c, rows);
  const size_t error = in.add(systems_.error, rows), corners = in.add(systems_.corners, slices_ * corners_ * 2);
  const size_t borders = in.add(systems_.borders, systems_.borders ? slices_ * corners_ * 4 : 0);
  const size_t norms = in.add(systems_.norms, systems_.norms ? 2 * stages_ * stages_ : 0);
  const size_t numbers = in.add(row_numbers), groups = in.add<uint8_t>(stages_);
  const size_t sides = in.add(first_side_), root = in.add(first_root);
  const size_t shared = in.add<Shared>(slices_);
  const size_t roots =
      in.add(std::vector<WarpTask>(static_cast<size_t>(slices_), WarpTask{-1, nullptr, nullptr, nullptr, 0, 0}));
  const size_t memory = in.add<char>(first_root.back());
  inputs_ = DeviceArray<char>(in.bytes());
  char* const base = inputs_.get();
  const auto at = [&](size_t place, auto type) { return reinterpret_cast<decltype(type)*>(base + place); };

  given_.slices = slices_, given_.stages = stages_, given_.n_corners = corners_;
  given_.begin = at(begin, int64_t{}), given_.stage_begin = at(stage_begin, int64_t{});
  given_.first_column = at(column, int64_t{}), given_.columns = at(all_columns, double{});
  given_.a = at(a, double{}), given_.b = at(b, double{}), given_.c = at(c, double{});
  given_.error = at(error, double{}), given_.corners = at(corners, double{});
  if (systems_.borders) given_.borders = at(borders, double{});
  if (systems_.norms) given_.norms = at(norms, double{});
  given_.row_numbers = at(numbers, int32_t{}), given_.no_groups = at(groups, uint8_t{});
  given_.options = options;
  given_.options.cells = nullptr, given_.options.changes = true;
  given_.shared = at(shared, Shared{{}, {}, nullptr, nullptr, 0, 0, 0, 0, 0}), given_.roots = at(roots, WarpTask{});
  given_.first_root = at(root, int64_t{}), given_.root_memory = at(memory, char{});
  given_.persistent = {base, base + in.bytes().size()};

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
  PLR_CUDA_CHECK(cudaGetLastError());
}

// Half of what is free, or what all warps can use.
void SlicesOnDevice::take_memory() {
  int resident = 0;
  PLR_CUDA_CHECK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&resident, walk_slices_kernel, kThreads, 0));
  most_warps_ = std::max<int64_t>(1, int64_t{resident} * attribute(cudaDevAttrMultiProcessorCount) * kWarps);
  size_t free_bytes = 0, all_bytes = 0;
  PLR_CUDA_CHECK(cudaMemGetInfo(&free_bytes, &all_bytes));
  for (int64_t bytes = std::min(static_cast<int64_t>(free_bytes / 4), most_warps_ * kBytesOfWarp);; bytes /= 2) {
    try {
      workspace_ = DeviceArray<char>(bytes);
      bytes_kept_ = bytes / 2;
      break;
    } catch (const std::runtime_error&) {
      cudaGetLastError();
      if (bytes < kLeastBytes) throw;
    }
  }
  launch_.memory = workspace_.get();
}

void SlicesOnDevice::walk(EngineProgress& progress) {
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
    if (root.slice < 0) leave(i);  // it was not made
    if (root.cell) tasks.tasks.push_back(root);
  }
  tasks.known.resize(tasks.tasks.size());
  launch_.steps = kFirstSteps;
  while (!tasks.tasks.empty() && !progress.stop) {
    const int64_t n = static_cast<int64_t>(tasks.tasks.size());
    // Once there are enough tasks for all warps, each does more and more before it puts something off.
    if (n >= kTasksOfWarp * most_warps_ || launch_.steps > kFirstSteps)
      launch_.steps = std::min(16 * launch_.steps, kMostSteps);
    tasks = next(tasks, progress);
  }
}

// Does all tasks, and returns those that they put off. Walks that need more memory are left to fewer warps, which have
// more.
SlicesOnDevice::Tasks SlicesOnDevice::next(const Tasks& now, EngineProgress& progress) {
  const int64_t n = static_cast<int64_t>(now.tasks.size());
  Tasks later;
  later.memory = DeviceArray<char>(bytes_kept_);
  const int64_t most = std::max<int64_t>(bytes_kept_ / kBytesOfTask, 1);
  const DeviceArray<WarpTask> tasks(now.tasks), put_off(most);
  const DeviceArray<int64_t> put_off_by(most);
  PLR_CUDA_CHECK(cudaMemset(put_off_by.get(), 0xff, static_cast<size_t>(most) * sizeof(int64_t)));  // by none
  const int64_t most_requests = std::max<int64_t>(bytes_kept_ / kBytesOfRequest, 2 * kMostAsked);
  const DeviceArray<Request> requests(most_requests);
  const DeviceArray<WalkOutcome> outcomes(std::vector<WalkOutcome>(static_cast<size_t>(n), WalkOutcome::none));
  counters_ = DeviceArray<unsigned long long>(std::vector<unsigned long long>(4, 0));
  launch_.tasks = tasks.get(), launch_.outcomes = outcomes.get(), launch_.stop = stop_.on_device();
  launch_.kept = later.memory.get(), launch_.kept_bytes = bytes_kept_;
  launch_.put_off = put_off.get(), launch_.put_off_by = put_off_by.get(), launch_.most_put_off = most;
  launch_.requests = requests.get(), launch_.most_requests = most_requests;
  launch_.next = counters_.get(), launch_.kept_used = launch_.next + 1;
  launch_.n_put_off = launch_.next + 2, launch_.n_requests = launch_.next + 3;

  std::vector<int64_t> todo(static_cast<size_t>(n)), done_in(static_cast<size_t>(n), -1);
  for (size_t i = 0; i < todo.size(); ++i) todo[i] = static_cast<int64_t>(i);
  int64_t attempt = 0;
  for (int64_t warps = most_warps_; warps > 0 && !todo.empty() && !progress.stop; warps /= kFewer, ++attempt) {
    launch_.warps = std::min(warps, static_cast<int64_t>(todo.size()));
    launch_.bytes = workspace_.size() / launch_.warps / 256 * 256;
    launch_.first_number = attempt * n;
    run(todo, progress);
    const std::vector<WalkOutcome> ended = outcomes.numbers();
    std::vector<int64_t> again;
    for (const int64_t i : todo) {
      const WalkOutcome how = ended[static_cast<size_t>(i)];
      if (how == WalkOutcome::done) done_in[static_cast<size_t>(i)] = attempt;
      if (how == WalkOutcome::no_memory) again.push_back(i);
    }
    todo = std::move(again);
  }
  if (progress.stop) return later;
  for (size_t i = 0; i < done_in.size(); ++i)
    if (done_in[i] < 0) leave(now.tasks[i].slice);
  leave_large();

  const std::vector<unsigned long long> counters = counters_.numbers();
  const int64_t kept = std::min(static_cast<int64_t>(counters[2]), most);
  const std::vector<WarpTask> all = put_off.numbers(kept);
  const std::vector<int64_t> by = put_off_by.numbers(kept);
  const std::vector<Request> asked = requests.numbers(std::min(static_cast<int64_t>(counters[3]), most_requests));
  std::vector<std::vector<Request>> of_task(all.size());
  for (const Request& request : asked)
    if (request.task >= 0 && request.task < kept) of_task[static_cast<size_t>(request.task)].push_back(request);
  for (size_t i = 0; i < all.size(); ++i) {
    const int64_t parent = by[i];
    if (parent < 0 || done_in[static_cast<size_t>(parent % n)] != parent / n || is_left(all[i].slice)) continue;
    later.tasks.push_back(all[i]);
    later.known.push_back(now.known[static_cast<size_t>(parent % n)]);
    ask(later, later.tasks.size() - 1, of_task[i]);
  }
  upload_answers(later);
  return later;
}

// Slices that have more regions than they may: the CPU stops where it has counted so many.
void SlicesOnDevice::leave_large() {
  const int64_t most = given_.options.max_regions;
  if (most < 0 || stages_ == 0) return;
  const std::vector<unsigned long long> regions = counts_.numbers(slices_ * stages_);
  for (int64_t i = 0; i < slices_; ++i)
    if (static_cast<int64_t>(regions[static_cast<size_t>((i + 1) * stages_ - 1)]) > most) leave(i);
}

// What a launch leaves undone (a warp whose walk ends early is gone) the next does.
void SlicesOnDevice::run(const std::vector<int64_t>& todo, EngineProgress& progress) {
  const DeviceArray<int64_t> numbers(todo);
  launch_.todo = numbers.get(), launch_.n_todo = numbers.size();
  counters_.set(std::vector<unsigned long long>(1, 0));
  const auto blocks = static_cast<unsigned>((launch_.warps + kWarps - 1) / kWarps);
  do {
    walk_slices_kernel<<<blocks, kThreads, 0, nullptr>>>(given_, launch_);
    PLR_CUDA_CHECK(cudaGetLastError());
    for (cudaError_t state; (state = cudaStreamQuery(nullptr)) != cudaSuccess;) {
      if (state != cudaErrorNotReady) PLR_CUDA_CHECK(state);
      if (progress.stop) stop_.set(1);
      std::this_thread::sleep_for(std::chrono::microseconds(100));
    }
  } while (counters_.numbers(1)[0] < todo.size() && !progress.stop);
}

// Of a task, what integers say to what it has asked. They have no need to be asked again below it: no line of an
// earlier stage is settled there.
void SlicesOnDevice::ask(Tasks& tasks, size_t number, const std::vector<Request>& asked) {
  if (asked.empty()) return;
  const WarpTask& task = tasks.tasks[number];
  const int64_t rows = systems_.begin[task.slice + 1] - systems_.begin[task.slice];
  std::vector<uint8_t> on(static_cast<size_t>(rows));
  if (rows) PLR_CUDA_CHECK(cudaMemcpy(on.data(), task.on, on.size(), cudaMemcpyDeviceToHost));
  for (const Request& it : asked)
    tasks.known[number].push_back({it.i, it.j, it.k, ask_(task.slice, it.i, it.j, it.k, on.data())});
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

WalkedSlices SlicesOnDevice::found() const {
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
    for (int64_t row = 0; row < systems_.begin[i + 1] - systems_.begin[i]; ++row)
      found.sides.push_back(
          static_cast<uint8_t>(sides[static_cast<size_t>(first_side_[i] + row / 4)] >> (8 * (row % 4))));
  return found;
}

}  // namespace

WalkedSlices walk_slices_cuda(const SliceSystems& systems, int64_t stages, const EngineOptions& options,
                              EngineProgress& progress, const AskIntegers& ask) {
  SlicesOnDevice slices(systems, stages, options, ask);
  slices.walk(progress);
  return slices.found();
}

}  // namespace pylinregion
