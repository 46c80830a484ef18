// csrc/partition/walk_slices.cu -- see walk_slices.h. A warp walks along a slice as a thread of the CPU does, with the
// text of the engine (lanes_warp.h): what it counts is the same to the bit, for on both multiply_add rounds once and
// nothing else is fused.
#define PLR_WARP
#include <algorithm>
#include <chrono>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <thread>

#include "../cuda_check.cuh"
#include "engine.h"
#include "outside_warp.h"
#include "walk_slices.h"

// The text of the engine, for this machine:
#include "engine_members.inl"

namespace pylinregion {
namespace {

constexpr int kThreads = 128;  // of a block: four warps, which know nothing of each other
constexpr int kWarps = kThreads / 32;
constexpr size_t kBytesOfWarp = size_t{1} << 20;  // if there is so much
constexpr int64_t kFewer = 8;                     // times, where they need more
constexpr size_t kLeastBytes = size_t{1} << 22;   // of all warps

// Slices as the device has them, one behind the other, and where it counts.
struct DeviceSlices {
  int64_t slices, stages, n_corners;
  const int64_t* begin;             // [slices + 1]: the first row of each
  const int64_t* stage_begin;       // [slices, stages + 1]
  const int64_t* first_column;      // [slices]: into columns
  const double* columns;            // of a slice with n rows [n, n + kLanes]
  const double *a, *b, *c, *error;  // [rows]
  const double *corners, *borders;  // [slices, n_corners, 2], [slices, n_corners, 2, 2] or null
  const double* norms;              // of one slice alone, or null
  const int32_t* row_numbers;       // 0, 1, 2 ...: as many as a slice has rows, and kLanes
  const uint8_t* no_groups;         // [stages]: 0
  EngineOptions options;

  int64_t* regions;                        // [slices, stages]
  uint8_t* sides;                          // [rows]
  int64_t* decisions;                      // [slices, 4]
  int64_t *pieces, *zero_along, *zero_at;  // if options.pieces; see SliceCounts
  WalkOutcome* outcomes;                   // [slices]

  const int64_t* todo;  // [n_todo]: slices that are walked along now
  int64_t n_todo;
  unsigned long long* next;  // of these, that no warp has taken
  const volatile int32_t* stop;
  int64_t warps;  // that walk; the others have no memory
  char* memory;   // of all warps
  int64_t bytes;  // that one has
};

__device__ Shared shared_of(const DeviceSlices& given, int64_t slice, StageView* stages) {
  const int64_t first = given.begin[slice], n = given.begin[slice + 1] - first, stride = n + kLanes;
  const int64_t* const stage_begin = given.stage_begin + slice * (given.stages + 1);
  const double* const columns = given.columns + given.first_column[slice];
  each(given.stages, [&](int64_t l) {
    const int64_t begin = stage_begin[l], end = stage_begin[l + 1];
    stages[l] = {begin, end, n, columns + begin * stride + end, stride};
  });
  System system{};
  system.stages = {stages, given.stages};
  system.lines = system.rows = n;  // numbered from 0 in each slice
  system.a = given.a + first, system.b = given.b + first, system.c = given.c + first;
  system.error = given.error + first;
  system.norms = given.norms;
  system.corners = given.corners + slice * given.n_corners * 2;
  system.n_corners = given.n_corners;
  if (given.borders) system.borders = given.borders + slice * given.n_corners * 4;
  Shared shared{system, given.options, given.row_numbers, given.no_groups, 0, 0, 0, 0, 0};
  find_extents(shared);
  return shared;
}

__device__ void walk_slice(const DeviceSlices& given, int64_t slice, char* memory) {
  WalkOutcome* const outcome = given.outcomes + slice;
  Arena arena(memory, given.bytes, outcome);
  StageView* const stages = arena.take<StageView>(given.stages);
  const Shared shared = shared_of(given, slice, stages);
  const int64_t n_stages = given.stages, n = given.n_corners;
  Tally tally{given.regions + slice * n_stages, given.sides + given.begin[slice], nullptr, nullptr, nullptr};
  fill(tally.regions, n_stages, int64_t{0});
  fill(tally.sides, shared.system.rows, uint8_t{0});
  if (given.options.pieces) {
    tally.pieces = given.pieces + slice * n_stages * n;
    tally.zero_along = given.zero_along + slice * n, tally.zero_at = given.zero_at + slice * n;
    fill(tally.pieces, n_stages * n, int64_t{0});
    fill(tally.zero_along, n, int64_t{0}), fill(tally.zero_at, n, int64_t{0});
  }
  Outside outside(arena, tally, given.options.max_regions, given.stop, outcome);
  WalksAll all;
  Walk<WalksAll> walk(shared, outside, all);
  walk.from_root();
  const Decisions by = walk.take_decisions();
  sync();
  if (!leads()) return;
  int64_t* const decisions = given.decisions + 4 * slice;
  decisions[0] = by.filter, decisions[1] = by.exact, decisions[2] = by.zeros, decisions[3] = by.folds;
  *outcome = WalkOutcome::done;
}

__global__ void __launch_bounds__(kThreads) walk_slices_kernel(DeviceSlices given) {
  const int64_t warp = (int64_t{blockIdx.x} * kThreads + threadIdx.x) / 32;
  if (warp >= given.warps) return;
  char* const memory = given.memory + warp * given.bytes;
  for (;;) {
    unsigned long long number = 0;
    if (leads()) number = atomicAdd(given.next, 1ull);
    number = __shfl_sync(kAllLanes, number, 0);
    if (number >= static_cast<unsigned long long>(given.n_todo)) return;
    walk_slice(given, given.todo[number], memory);
    sync();
  }
}

// --- the host's part ---

// Memory of the device, or of the host where the device can read it.
class DeviceMemory {
 public:
  explicit DeviceMemory(size_t bytes) { PLR_CUDA_CHECK(cudaMalloc(&memory_, bytes)); }
  DeviceMemory(const DeviceMemory&) = delete;
  ~DeviceMemory() { cudaFree(memory_); }
  char* get() const { return static_cast<char*>(memory_); }

 private:
  void* memory_ = nullptr;
};
class StopFlag {
 public:
  StopFlag() {
    PLR_CUDA_CHECK(cudaHostAlloc(&host_, sizeof(int32_t), cudaHostAllocMapped));
    set(0);
    PLR_CUDA_CHECK(cudaHostGetDevicePointer(&device_, host_, 0));
  }
  StopFlag(const StopFlag&) = delete;
  ~StopFlag() { cudaFreeHost(host_); }
  void set(int32_t value) { *static_cast<volatile int32_t*>(host_) = value; }
  const volatile int32_t* on_device() const { return static_cast<const volatile int32_t*>(device_); }

 private:
  void *host_ = nullptr, *device_ = nullptr;
};

// Arrays one behind the other, as they are copied to the device and back in one piece.
class Packed {
 public:
  // Room for n numbers; returns where they will be.
  template <class T> size_t add(int64_t n) {
    const size_t at = bytes_.size();
    bytes_.resize(at + (static_cast<size_t>(n) * sizeof(T) + 255) / 256 * 256);
    return at;
  }
  template <class T> size_t add(const T* numbers, int64_t n) {
    const size_t at = add<T>(n);
    if (n) std::memcpy(bytes_.data() + at, numbers, static_cast<size_t>(n) * sizeof(T));
    return at;
  }
  template <class T> T* at(size_t place) { return reinterpret_cast<T*>(bytes_.data() + place); }
  template <class T> void take(size_t place, int64_t n, std::vector<T>& to) {
    to.assign(at<T>(place), at<T>(place) + n);
  }
  size_t size() const { return bytes_.size(); }
  char* data() { return bytes_.data(); }

 private:
  std::vector<char> bytes_;
};

int attribute(cudaDeviceAttr which) {
  int device = 0, value = 0;
  PLR_CUDA_CHECK(cudaGetDevice(&device));
  PLR_CUDA_CHECK(cudaDeviceGetAttribute(&value, which, device));
  return value;
}

// Slices of a network on the device.
class SlicesOnDevice {
 public:
  SlicesOnDevice(const SliceSystems& systems, int64_t stages, const EngineOptions& options);
  void walk(EngineProgress& progress);
  WalkedSlices found();

 private:
  void launch(const std::vector<int64_t>& todo, EngineProgress& progress);
  std::vector<int64_t> slices_with(WalkOutcome outcome);

  const SliceSystems& systems_;
  const int64_t stages_, slices_, rows_, corners_;
  DeviceSlices given_{};
  Packed inputs_, outputs_;
  size_t regions_, sides_, decisions_, pieces_, zero_along_, zero_at_, outcomes_, todo_, next_;
  std::unique_ptr<DeviceMemory> on_device_;
  StopFlag stop_;
};

SlicesOnDevice::SlicesOnDevice(const SliceSystems& systems, int64_t stages, const EngineOptions& options)
    : systems_(systems),
      stages_(stages),
      slices_(systems.slices),
      rows_(systems.begin[systems.slices]),
      corners_(systems.n_corners) {
  // Columns with as many zeros behind them as a warp has lanes.
  std::vector<double> columns;
  std::vector<int64_t> first_column;
  const double* from = systems.columns;
  int64_t most_rows = 0;
  for (int64_t i = 0; i < slices_; ++i) {
    const int64_t n = systems.begin[i + 1] - systems.begin[i];
    most_rows = std::max(most_rows, n);
    first_column.push_back(static_cast<int64_t>(columns.size()));
    columns.resize(columns.size() + static_cast<size_t>(n * (n + kLanes)), 0.0);
    double* to = columns.data() + first_column.back();
    for (int64_t row = 0; row < n; ++row, from += n + kColumnPadding, to += n + kLanes) std::copy_n(from, n, to);
  }
  columns.resize(columns.size() + kLanes, 0.0);
  std::vector<int32_t> row_numbers(static_cast<size_t>(most_rows + kLanes));
  for (size_t r = 0; r < row_numbers.size(); ++r) row_numbers[r] = static_cast<int32_t>(r);
  const std::vector<uint8_t> no_groups(static_cast<size_t>(stages), 0);

  Packed& in = inputs_;
  const size_t begin = in.add(systems.begin, slices_ + 1);
  const size_t stage_begin = in.add(systems.stage_begin, slices_ * (stages + 1));
  const size_t first = in.add(first_column.data(), slices_);
  const size_t all_columns = in.add(columns.data(), static_cast<int64_t>(columns.size()));
  const size_t a = in.add(systems.a, rows_), b = in.add(systems.b, rows_), c = in.add(systems.c, rows_);
  const size_t error = in.add(systems.error, rows_);
  const size_t corners = in.add(systems.corners, slices_ * corners_ * 2);
  const size_t borders = systems.borders ? in.add(systems.borders, slices_ * corners_ * 4) : 0;
  const size_t norms = systems.norms ? in.add(systems.norms, 2 * stages * stages) : 0;
  const size_t numbers = in.add(row_numbers.data(), static_cast<int64_t>(row_numbers.size()));
  const size_t groups = in.add(no_groups.data(), stages);
  Packed& out = outputs_;
  regions_ = out.add<int64_t>(slices_ * stages), sides_ = out.add<uint8_t>(rows_);
  decisions_ = out.add<int64_t>(slices_ * 4), outcomes_ = out.add<WalkOutcome>(slices_);
  const int64_t pieces = options.pieces ? slices_ * corners_ : 0;
  pieces_ = out.add<int64_t>(pieces * stages), zero_along_ = out.add<int64_t>(pieces);
  zero_at_ = out.add<int64_t>(pieces);
  todo_ = out.add<int64_t>(slices_), next_ = out.add<unsigned long long>(1);

  on_device_ = std::make_unique<DeviceMemory>(in.size() + out.size());
  char* const base = on_device_->get();
  PLR_CUDA_CHECK(cudaMemcpy(base, in.data(), in.size(), cudaMemcpyHostToDevice));
  const auto read = [&](size_t place, auto type) { return reinterpret_cast<const decltype(type)*>(base + place); };
  const auto write = [&](size_t place, auto type) {
    return reinterpret_cast<decltype(type)*>(base + in.size() + place);
  };
  const double number = 0;
  const int64_t whole = 0;
  given_.slices = slices_, given_.stages = stages, given_.n_corners = corners_;
  given_.begin = read(begin, whole), given_.stage_begin = read(stage_begin, whole);
  given_.first_column = read(first, whole), given_.columns = read(all_columns, number);
  given_.a = read(a, number), given_.b = read(b, number), given_.c = read(c, number);
  given_.error = read(error, number), given_.corners = read(corners, number);
  if (systems.borders) given_.borders = read(borders, number);
  if (systems.norms) given_.norms = read(norms, number);
  given_.row_numbers = read(numbers, int32_t{}), given_.no_groups = read(groups, uint8_t{});
  given_.options = options;
  given_.options.cells = nullptr, given_.options.changes = true;
  given_.regions = write(regions_, int64_t{}), given_.sides = write(sides_, uint8_t{});
  given_.decisions = write(decisions_, int64_t{}), given_.outcomes = write(outcomes_, WalkOutcome{});
  given_.pieces = write(pieces_, int64_t{}), given_.zero_along = write(zero_along_, int64_t{});
  given_.zero_at = write(zero_at_, int64_t{});
  given_.todo = write(todo_, int64_t{}), given_.next = write(next_, 0ull);
  given_.stop = stop_.on_device();
}

std::vector<int64_t> SlicesOnDevice::slices_with(WalkOutcome outcome) {
  std::vector<int64_t> found;
  const WalkOutcome* outcomes = outputs_.at<WalkOutcome>(outcomes_);
  for (int64_t i = 0; i < slices_; ++i)
    if (outcomes[i] == outcome) found.push_back(i);
  return found;
}

// Warps that need more memory than they have leave their slices to fewer, which have more.
void SlicesOnDevice::walk(EngineProgress& progress) {
  int resident = 0;
  PLR_CUDA_CHECK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&resident, walk_slices_kernel, kThreads, 0));
  const int64_t most = int64_t{resident} * attribute(cudaDevAttrMultiProcessorCount);
  size_t free_bytes = 0, all_bytes = 0;
  PLR_CUDA_CHECK(cudaMemGetInfo(&free_bytes, &all_bytes));
  std::vector<int64_t> todo = slices_with(WalkOutcome::none);
  const int64_t most_warps = std::min<int64_t>(most * kWarps, slices_);
  size_t bytes = std::min<size_t>(free_bytes / 2, static_cast<size_t>(most_warps) * kBytesOfWarp);
  std::unique_ptr<DeviceMemory> memory;
  while (!memory) {
    try {
      memory = std::make_unique<DeviceMemory>(bytes);
    } catch (const std::runtime_error&) {
      cudaGetLastError();
      bytes /= 2;
      if (bytes < kLeastBytes) throw;
    }
  }
  given_.memory = memory->get();
  for (int64_t warps = most_warps; warps > 0 && !todo.empty() && !progress.stop; warps /= kFewer) {
    given_.warps = std::min(warps, static_cast<int64_t>(todo.size()));
    given_.bytes = static_cast<int64_t>(bytes) / given_.warps / 256 * 256;
    launch(todo, progress);
    todo = slices_with(WalkOutcome::no_memory);
  }
}

void SlicesOnDevice::launch(const std::vector<int64_t>& todo, EngineProgress& progress) {
  std::copy(todo.begin(), todo.end(), outputs_.at<int64_t>(todo_));
  for (const int64_t slice : todo) outputs_.at<WalkOutcome>(outcomes_)[slice] = WalkOutcome::none;
  *outputs_.at<unsigned long long>(next_) = 0;
  given_.n_todo = static_cast<int64_t>(todo.size());
  char* const outputs = on_device_->get() + inputs_.size();
  PLR_CUDA_CHECK(cudaMemcpy(outputs, outputs_.data(), outputs_.size(), cudaMemcpyHostToDevice));
  // A warp whose walk ends early is gone: others take what is left, in this launch or the next.
  while (*outputs_.at<unsigned long long>(next_) < todo.size() && !progress.stop) {
    const cudaStream_t stream = nullptr;
    const auto blocks = static_cast<unsigned>((given_.warps + kWarps - 1) / kWarps);
    walk_slices_kernel<<<blocks, kThreads, 0, stream>>>(given_);
    PLR_CUDA_CHECK(cudaGetLastError());
    for (cudaError_t state; (state = cudaStreamQuery(stream)) != cudaSuccess;) {
      if (state != cudaErrorNotReady) PLR_CUDA_CHECK(state);
      if (progress.stop) stop_.set(1);
      std::this_thread::sleep_for(std::chrono::microseconds(100));
    }
    PLR_CUDA_CHECK(cudaMemcpy(outputs_.data(), outputs, outputs_.size(), cudaMemcpyDeviceToHost));
  }
}

WalkedSlices SlicesOnDevice::found() {
  WalkedSlices found;
  outputs_.take(outcomes_, slices_, found.outcomes);
  outputs_.take(regions_, slices_ * stages_, found.regions);
  outputs_.take(decisions_, slices_ * 4, found.decisions);
  const int64_t pieces = given_.options.pieces ? slices_ * corners_ : 0;
  outputs_.take(pieces_, pieces * stages_, found.pieces);
  outputs_.take(zero_along_, pieces, found.zero_along), outputs_.take(zero_at_, pieces, found.zero_at);
  outputs_.take(sides_, rows_, found.sides);
  return found;
}

}  // namespace

WalkedSlices walk_slices_cuda(const SliceSystems& systems, int64_t stages, const EngineOptions& options,
                              EngineProgress& progress) {
  SlicesOnDevice slices(systems, stages, options);
  slices.walk(progress);
  return slices.found();
}

}  // namespace pylinregion
