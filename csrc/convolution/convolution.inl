// csrc/convolution/convolution.inl -- see convolution.h; compiled once per instruction set. The includer defines
// PLR_CONVOLVE (the function's name).
#include <algorithm>
#include <array>
#include <numeric>

#include "../parallel.h"
#include "../partition/lanes.h"
#include "convolution.h"

namespace pylinregion {
namespace {

// A tile is so many channels of so many lanes: what the registers hold.
constexpr int kChannels = Native::count == 8 ? 8 : 4;
constexpr int kVectors = Native::count == 8 ? 2 : 1;
constexpr int64_t kLine = 8;  // numbers of a vector that are moved at once: vectors may lie powers of two apart, where
                              // lines of the cache do not stay for the next number
constexpr int64_t kRun = kConvolutionRun;
constexpr int64_t kTogether = kVectors * kLanes;  // vectors that are taken together
constexpr int64_t kWorthThreads = 1 << 19;        // operations: to begin threads takes as long as a part of these
constexpr int64_t kMostKept = 1 << 20;            // numbers of a thread's memory

using Size = std::array<int64_t, 3>;
inline size_t at(int64_t i) { return static_cast<size_t>(i); }
inline int64_t volume(const Size& size) { return size[0] * size[1] * size[2]; }

// Where the numbers of a vector are not 0: [begin, end) in each dimension.
struct Box {
  Size begin{INT64_MAX, INT64_MAX, INT64_MAX}, end{0, 0, 0};
  bool empty() const { return end[0] == 0; }
  void add(const Box& other) {
    for (size_t d = 0; d < 3; ++d)
      begin[d] = std::min(begin[d], other.begin[d]), end[d] = std::max(end[d], other.end[d]);
  }
  int64_t size(size_t d) const { return end[d] - begin[d]; }
};

// By place of the result, in one dimension: which places of the kernel meet which of the operand.
struct Taps {
  std::vector<int64_t> begin;  // [places + 1]
  std::vector<int64_t> kernel, from;
};

// What the loops are over: a convolution of `inputs` to `outputs` channels in each group, forwards or transposed.
struct Shape {
  Size from, to, kernel;
  int64_t inputs, outputs, groups;
  std::array<Taps, 3> taps;
};

Shape shape_of(const ConvolutionMap& map, bool to_target) {
  Shape out;
  out.from = to_target ? map.source : map.target, out.to = to_target ? map.target : map.source;
  out.kernel = map.kernel;
  out.groups = map.groups;
  out.inputs = (to_target ? map.in_channels : map.out_channels) / map.groups;
  out.outputs = (to_target ? map.out_channels : map.in_channels) / map.groups;
  for (size_t d = 0; d < 3; ++d) {
    Taps& taps = out.taps[d];
    taps.begin.push_back(0);
    for (int64_t place = 0; place < out.to[d]; ++place) {
      for (int64_t k = 0; k < map.kernel[d]; ++k) {
        const int64_t offset = k * map.dilation[d] - map.padding[d];
        const int64_t moved = to_target ? place * map.stride[d] + offset : place - offset;
        if (!to_target && (moved < 0 || moved % map.stride[d] != 0)) continue;
        const int64_t from = to_target ? moved : moved / map.stride[d];
        if (from < 0 || from >= out.from[d]) continue;
        taps.kernel.push_back(k), taps.from.push_back(from);
      }
      taps.begin.push_back(static_cast<int64_t>(taps.kernel.size()));
    }
  }
  return out;
}

// The weights in the order of the loops: [group][tile of channels][place of the kernel][input][channel of the tile].
std::vector<double> packed(const LinearMap& map, const Shape& shape, bool to_target) {
  const int64_t places = volume(shape.kernel), tiles = (shape.outputs + kChannels - 1) / kChannels;
  const int64_t of_target = to_target ? shape.outputs : shape.inputs,
                of_source = to_target ? shape.inputs : shape.outputs;
  std::vector<double> out(at(shape.groups * tiles * places * shape.inputs * kChannels), 0.0);
  for (int64_t g = 0; g < shape.groups; ++g)
    for (int64_t o = 0; o < shape.outputs; ++o)
      for (int64_t i = 0; i < shape.inputs; ++i)
        for (int64_t k = 0; k < places; ++k) {
          const int64_t row = g * of_target + (to_target ? o : i), column = to_target ? i : o;
          out[at((((g * tiles + o / kChannels) * places + k) * shape.inputs + i) * kChannels + o % kChannels)] =
              map.numbers[(row * of_source + column) * places + k];
        }
  return out;
}

Box box_of(const double* x, int64_t channels, const Size& size) {
  Box box;
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t z = 0; z < size[0]; ++z)
      for (int64_t y = 0; y < size[1]; ++y, x += size[2]) {
        int64_t first = 0, last = size[2];
        while (first < last && x[first] == 0) ++first;
        if (first == last) continue;
        while (x[last - 1] == 0) --last;
        box.add({{z, y, first}, {z + 1, y + 1, last}});
      }
  return box;
}

// The places that a box reaches, in one dimension.
void reach(const Taps& taps, int64_t begin, int64_t end, int64_t& first, int64_t& last) {
  first = INT64_MAX, last = 0;
  for (int64_t place = 0; place + 1 < static_cast<int64_t>(taps.begin.size()); ++place)
    for (int64_t t = taps.begin[at(place)]; t < taps.begin[at(place + 1)]; ++t)
      if (taps.from[at(t)] >= begin && taps.from[at(t)] < end) first = std::min(first, place), last = place + 1;
}

// What a thread works in. A thread that calls keeps that of its workers, which live for one call: new memory takes as
// long as what is done in it.
struct Memory {
  std::vector<double> in, out;
  void give_back() {
    for (std::vector<double>* each : {&in, &out})
      if (static_cast<int64_t>(each->capacity()) > kMostKept) *each = std::vector<double>();
  }
};

// Some vectors at a time, a lane each.
class Together {
 public:
  Together(const Shape& shape, const std::vector<double>& weights, const Convolved& given, Memory& memory)
      : shape_(shape), weights_(weights), given_(given), in_(memory.in), out_(memory.out) {}

  // The vectors of these numbers, all 0 outside of a box.
  void run(const int64_t* numbers, int64_t count, const Box& box) {
    for (size_t d = 0; d < 3; ++d) reach(shape_.taps[d], box.begin[d], box.end[d], to_.begin[d], to_.end[d]);
    for (size_t d = 0; d < 3; ++d)
      if (to_.end[d] == 0) return;
    from_ = box;
    gather(numbers, count);
    const int64_t out_places = to_.size(0) * to_.size(1) * to_.size(2);
    have(out_, shape_.groups * shape_.outputs * out_places * kTogether);
    const int64_t tiles = (shape_.outputs + kChannels - 1) / kChannels;
    const int64_t panel = volume(shape_.kernel) * shape_.inputs * kChannels;
    for (int64_t g = 0; g < shape_.groups; ++g)
      for (int64_t tile = 0; tile < tiles; ++tile)
        channels(g, tile * kChannels, weights_.data() + (g * tiles + tile) * panel);
    scatter(numbers, count);
  }

 private:
  static void have(std::vector<double>& memory, int64_t size) {
    if (static_cast<int64_t>(memory.size()) < size) memory.resize(at(size));
  }
  // The box of the operand, [z, y, x, channel, lane].
  void gather(const int64_t* numbers, int64_t count) {
    const int64_t channels = shape_.groups * shape_.inputs, width = volume(shape_.from) * channels;
    const int64_t size = channels * from_.size(0) * from_.size(1) * from_.size(2) * kTogether;
    have(in_, size);
    if (count < kTogether) std::fill_n(in_.begin(), size, 0.0);
    const double* x[kTogether];
    for (int64_t lane = 0; lane < count; ++lane) x[lane] = given_.x + numbers[lane] * width;
    int64_t line = 0;
    for (int64_t z = from_.begin[0]; z < from_.end[0]; ++z)
      for (int64_t y = from_.begin[1]; y < from_.end[1]; ++y, line += from_.size(2))
        for (int64_t c = 0; c < channels; ++c) {
          const int64_t row = ((c * shape_.from[0] + z) * shape_.from[1] + y) * shape_.from[2];
          double* to = in_.data() + (line * channels + c) * kTogether;
          for (int64_t i = from_.begin[2]; i < from_.end[2]; i += kLine, to += kLine * channels * kTogether) {
            const int64_t some = std::min(kLine, from_.end[2] - i);
            for (int64_t lane = 0; lane < count; ++lane)
              for (int64_t k = 0; k < some; ++k) to[k * channels * kTogether + lane] = x[lane][row + i + k];
          }
        }
  }
  void scatter(const int64_t* numbers, int64_t count) {
    const int64_t channels = shape_.groups * shape_.outputs, width = volume(shape_.to) * channels;
    double* out[kTogether];
    for (int64_t lane = 0; lane < count; ++lane) out[lane] = given_.out + numbers[lane] * width;
    const double* from = out_.data();
    for (int64_t c = 0; c < channels; ++c)
      for (int64_t z = to_.begin[0]; z < to_.end[0]; ++z)
        for (int64_t y = to_.begin[1]; y < to_.end[1]; ++y) {
          const int64_t row = ((c * shape_.to[0] + z) * shape_.to[1] + y) * shape_.to[2];
          for (int64_t i = to_.begin[2]; i < to_.end[2]; i += kLine) {
            const int64_t some = std::min(kLine, to_.end[2] - i);
            for (int64_t lane = 0; lane < count; ++lane)
              for (int64_t k = 0; k < some; ++k) out[lane][row + i + k] += from[k * kTogether + lane];
            from += some * kTogether;
          }
        }
  }

  // A tile of channels at all places that the box reaches.
  void channels(int64_t group, int64_t first, const double* weights) {
    const Taps &zs = shape_.taps[0], &ys = shape_.taps[1], &xs = shape_.taps[2];
    const int64_t stride = shape_.groups * shape_.inputs * kTogether;  // from place to place
    const double* const in = in_.data() + group * shape_.inputs * kTogether;
    const int64_t out_places = to_.size(0) * to_.size(1) * to_.size(2);
    const int64_t some = std::min<int64_t>(kChannels, shape_.outputs - first);
    double* out = out_.data() + (group * shape_.outputs + first) * out_places * kTogether;
    for (int64_t z = to_.begin[0]; z < to_.end[0]; ++z)
      for (int64_t y = to_.begin[1]; y < to_.end[1]; ++y)
        for (int64_t x = to_.begin[2]; x < to_.end[2]; ++x, out += kTogether) {
          V sums[kChannels][kVectors], totals[kChannels][kVectors];
          const auto clear = [](auto& all) {
            for (auto& row : all)
              for (V& sum : row) sum = set(0);
          };
          clear(sums), clear(totals);
          int64_t run = 0;  // products in each of the sums
          for (int64_t a = zs.begin[at(z)]; a < zs.begin[at(z + 1)]; ++a) {
            if (zs.from[at(a)] < from_.begin[0] || zs.from[at(a)] >= from_.end[0]) continue;
            for (int64_t b = ys.begin[at(y)]; b < ys.begin[at(y + 1)]; ++b) {
              if (ys.from[at(b)] < from_.begin[1] || ys.from[at(b)] >= from_.end[1]) continue;
              const int64_t line = (zs.from[at(a)] - from_.begin[0]) * from_.size(1) + ys.from[at(b)] - from_.begin[1];
              const int64_t plane = zs.kernel[at(a)] * shape_.kernel[1] + ys.kernel[at(b)];
              for (int64_t c = xs.begin[at(x)]; c < xs.begin[at(x + 1)]; ++c) {
                if (xs.from[at(c)] < from_.begin[2] || xs.from[at(c)] >= from_.end[2]) continue;
                const double* operand = in + (line * from_.size(2) + xs.from[at(c)] - from_.begin[2]) * stride;
                const double* w = weights + (plane * shape_.kernel[2] + xs.kernel[at(c)]) * shape_.inputs * kChannels;
                for (int64_t piece = 0; piece < shape_.inputs; piece += kRun) {
                  const int64_t end = std::min(shape_.inputs, piece + kRun);
                  if (run + end - piece > kRun) {
                    for (int o = 0; o < kChannels; ++o)
                      for (int v = 0; v < kVectors; ++v) totals[o][v] += sums[o][v];
                    clear(sums);
                    run = 0;
                  }
                  run += end - piece;
                  for (int64_t i = piece; i < end; ++i, operand += kTogether, w += kChannels) {
                    V lanes[kVectors];
                    for (int v = 0; v < kVectors; ++v) lanes[v] = load(operand + v * kLanes);
                    for (int o = 0; o < kChannels; ++o)
                      for (int v = 0; v < kVectors; ++v) sums[o][v] = multiply_add(set(w[o]), lanes[v], sums[o][v]);
                  }
                }
              }
            }
          }
          for (int64_t o = 0; o < some; ++o)
            for (int v = 0; v < kVectors; ++v)
              store(out + o * out_places * kTogether + v * kLanes, totals[o][v] + sums[o][v]);
        }
  }

  const Shape& shape_;
  const std::vector<double>& weights_;
  const Convolved& given_;
  Box from_, to_;
  std::vector<double>&in_, &out_;
};

}  // namespace

void PLR_CONVOLVE(const Convolved& given) {
  const ConvolutionMap& map = given.map.convolution;
  const bool to_target = given.forwards != map.transposed;
  const Shape shape = shape_of(map, to_target);
  const std::vector<double> weights = packed(given.map, shape, to_target);
  const int64_t channels = shape.groups * shape.inputs, width = volume(shape.from) * channels;
  std::vector<Box> boxes(at(given.n));
  const int scanning = given.n * width < kWorthThreads ? 1 : given.threads;
  parallel_ranges(given.n, scanning, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) boxes[at(i)] = box_of(given.x + i * width, channels, shape.from);
  });
  // Neighbours together: by the middle of their boxes, in stripes as wide as the boxes are.
  std::vector<int64_t> order(at(given.n));
  std::iota(order.begin(), order.end(), int64_t{0});
  order.erase(std::remove_if(order.begin(), order.end(), [&](int64_t i) { return boxes[at(i)].empty(); }), order.end());
  const auto key = [&](int64_t i) {
    const Box& box = boxes[at(i)];
    const int64_t high = std::max<int64_t>(2, 2 * box.size(1));
    const int64_t stripe = (box.begin[1] + box.end[1]) / high, across = box.begin[2] + box.end[2];
    return std::array<int64_t, 5>{box.size(1) * box.size(2), box.begin[0] + box.end[0], high, stripe,
                                  stripe % 2 ? -across : across};
  };
  const auto less = [&](int64_t i, int64_t j) {
    const auto p = key(i), q = key(j);
    const auto size = [](int64_t n) { return n <= 0 ? 0 : 63 - __builtin_clzll(static_cast<uint64_t>(n)); };
    const std::array<int64_t, 6> first{size(p[0]), p[1], p[2], p[3], p[4], i};
    const std::array<int64_t, 6> second{size(q[0]), q[1], q[2], q[3], q[4], j};
    return first < second;
  };
  std::sort(order.begin(), order.end(), less);
  const int64_t n = static_cast<int64_t>(order.size()), blocks = (n + kTogether - 1) / kTogether;
  thread_local std::vector<Memory> kept;
  std::vector<Memory>& memory = kept;  // this thread's
  memory.resize(std::max(memory.size(), at(std::max(1, given.threads))));
  int64_t products = 0;
  for (const int64_t i : order) {
    const Box& box = boxes[at(i)];
    products += box.size(0) * box.size(1) * box.size(2) * channels * shape.outputs * volume(shape.kernel);
  }
  const int threads = products / kLanes < kWorthThreads ? 1 : given.threads;
  parallel_items(blocks, threads, [&](int64_t worker, const auto& next) {  // the largest boxes are last
    Together together(shape, weights, given, memory[at(worker)]);
    for (int64_t block = next(); block >= 0; block = next()) {
      const int64_t first = block * kTogether, count = std::min(kTogether, n - first);
      Box box;
      for (int64_t i = first; i < first + count; ++i) box.add(boxes[at(order[at(i)])]);
      together.run(order.data() + first, count, box);
    }
  });
  for (Memory& each : memory) each.give_back();
}

}  // namespace pylinregion
