// csrc/partition/arms.inl -- see arms.h; compiled once for each instruction set. The includer defines PLR_COUNT_ARMS
// (the function's name) and PLR_ENUMERATE (that of the engine).
#include <algorithm>
#include <cmath>
#include <cstring>

#include "../rounding.h"
#include "arms.h"
#include "lanes.h"

namespace pylinregion {
namespace {

// The patterns of a point's rows, a bit for each, in words of 64.
class Patterns final : public CellSink {
 public:
  void restart(int64_t rows) {
    bytes_ = static_cast<size_t>((rows + 7) / 8), words_ = (bytes_ + 7) / 8;
    all_.clear();
  }
  void add(const CellList& cells) override {
    for (size_t at = 0; at < cells.patterns.size(); at += bytes_) std::memcpy(add_one(), &cells.patterns[at], bytes_);
  }
  uint64_t* add_one() {
    all_.resize(all_.size() + words_, 0);
    return all_.data() + all_.size() - words_;
  }
  size_t words() const { return words_; }
  size_t size() const { return all_.size(); }
  void resize(size_t size) { all_.resize(size); }

  // How many are different; and each row that is on in one and off in another.
  template <class Take> int64_t tell(const Take& take) {
    if (!words_) return 1;
    for (size_t word = 0; word < words_; ++word) {
      uint64_t some = 0, every = ~uint64_t{0};
      for (size_t at = word; at < all_.size(); at += words_) some |= all_[at], every &= all_[at];
      for (uint64_t bits = some & ~every; bits; bits &= bits - 1)
        take(static_cast<int64_t>(64 * word) + __builtin_ctzll(bits));
    }
    return words_ == 1 ? of_one_word() : of_several();
  }

 private:
  int64_t of_one_word() {
    std::sort(all_.begin(), all_.end());
    return std::unique(all_.begin(), all_.end()) - all_.begin();
  }
  int64_t of_several() const {
    std::vector<const uint64_t*> each;
    for (size_t at = 0; at < all_.size(); at += words_) each.push_back(&all_[at]);
    const size_t size = words_ * sizeof(uint64_t);
    std::sort(each.begin(), each.end(),
              [size](const uint64_t* x, const uint64_t* y) { return std::memcmp(x, y, size) < 0; });
    return std::unique(each.begin(), each.end(),
                       [size](const uint64_t* x, const uint64_t* y) { return !std::memcmp(x, y, size); }) -
           each.begin();
  }

  size_t bytes_ = 0, words_ = 0;
  std::vector<uint64_t> all_;
};

// The later rows of an arm on a stretch of it: as functions value + slope s of s, off by error at most once what the
// arithmetic has rounded is added, in units of size.
struct ArmRows {
  double *value, *slope, *error, *size;  // [rows]
};

// A point of an arm: an end of it, or where a row is 0; |at - exact| <= off.
struct ArmPoint {
  double at, off;
};

// Walks along an arm as far as float64 tells the way; docs/exactness.md, 5.6.
class ArmWalk {
 public:
  // Whether it tells all of it; then the patterns of the regions are added.
  bool walk(const System& system, double radius, Patterns& patterns) {
    system_ = &system, patterns_ = &patterns, radius_ = radius;
    n_ = static_cast<size_t>(system.rows);
    gamma_ = gamma(system.rows + kEvaluation);
    const size_t padded_rows = static_cast<size_t>(padded(system.rows) + kLanes),
                 levels = 2 * static_cast<size_t>(system.stages.count) + 1;
    if (numbers_.size() < 4 * levels * padded_rows) numbers_.resize(4 * levels * padded_rows);
    level_size_ = padded_rows;
    on_.assign(patterns.words(), 0);
    const ArmRows rows = level(0);
    for (size_t r = 0; r < n_; ++r) {
      rows.value[r] = system.c[r], rows.slope[r] = system.a[r], rows.error[r] = system.error[r];
      rows.size[r] = std::fabs(system.c[r]) + radius * std::fabs(system.a[r]);
    }
    crossings_.clear();
    return stretch(0, {-radius, 0}, {radius, 0});
  }

 private:
  struct Crossing {
    ArmPoint point;
    int64_t row;
    bool up;
  };

  // What is known in front of a stage; and, beside it, once those rows of the stage are passed on that cross nothing.
  ArmRows level(size_t stage, bool settled = false) {
    double* const first = numbers_.data() + 4 * (2 * stage + settled) * level_size_;
    return {first, first + level_size_, first + 2 * level_size_, first + 3 * level_size_};
  }
  bool is_on(int64_t row) const { return on_[static_cast<size_t>(row / 64)] >> (row % 64) & 1; }
  // Of the rows from one on, up to eight that have a bit in `which`.
  void set_on(int64_t row, uint64_t on, uint64_t which) {
    const size_t word = static_cast<size_t>(row / 64);
    const int shift = static_cast<int>(row % 64);
    on_[word] = (on_[word] & ~(which << shift)) | on << shift;
    if (shift > 64 - static_cast<int>(kLanes) && word + 1 < on_.size())
      on_[word + 1] = (on_[word + 1] & ~(which >> (64 - shift))) | on >> (64 - shift);
  }

  // From a stage on, between two points: false if a sign or an order is not proven.
  bool stretch(size_t number, ArmPoint from, ArmPoint to) {
    const size_t stages = static_cast<size_t>(system_->stages.count);
    const auto stage_at = [&](size_t l) -> const StageView& { return system_->stages[static_cast<int64_t>(l)]; };
    while (number < stages && stage_at(number).begin == stage_at(number).end) {
      copy(level(number), level(number + 1), stage_at(number).end);
      ++number;
    }
    if (number == stages) {
      std::copy(on_.begin(), on_.end(), patterns_->add_one());
      return true;
    }
    const StageView& stage = stage_at(number);
    const size_t first = crossings_.size();
    if (!look_at(level(number), stage, from, to)) return false;
    const size_t end = crossings_.size();
    std::sort(crossings_.begin() + static_cast<std::ptrdiff_t>(first), crossings_.end(),
              [](const Crossing& x, const Crossing& y) { return x.point.at < y.point.at; });
    for (size_t i = first; i + 1 < end; ++i) {
      const ArmPoint &here = crossings_[i].point, &next = crossings_[i + 1].point;
      if (!(next.at - here.at > (next.off + here.off) * kInflateNorm)) return false;
    }
    const bool more = number + 1 < stages;
    if (more) {
      copy(level(number), level(number, true), stage.end);
      for (int64_t row = stage.begin; row < stage.end; ++row)
        if (is_on(row) && !crosses(row, first, end)) pass_on(stage, row, level(number), level(number, true));
    }
    for (size_t i = first; i <= end; ++i) {
      if (i > first) set_on(crossings_[i - 1].row, crossings_[i - 1].up, 1);
      if (more) {
        copy(level(number, true), level(number + 1), stage.end);
        for (size_t j = first; j < end; ++j)
          if (is_on(crossings_[j].row)) pass_on(stage, crossings_[j].row, level(number), level(number + 1));
      }
      if (!stretch(number + 1, i > first ? crossings_[i - 1].point : from, i < end ? crossings_[i].point : to))
        return false;
    }
    crossings_.resize(first);
    return true;
  }

  // Where the rows of a stage are on, or where they cross.
  bool look_at(const ArmRows& rows, const StageView& stage, ArmPoint from, ArmPoint to) {
    const V more = set(kInflateNorm);
    for (int64_t row = stage.begin; row < stage.end; row += kLanes) {
      const uint32_t valid = first_lanes(stage.end - row);
      const V value = load(rows.value + row), slope = load(rows.slope + row), steep = abs(slope);
      const V off = multiply_add(set(gamma_), load(rows.size + row), load(rows.error + row)) * more + set(kRowOnSlice);
      const V before = multiply_add(slope, set(from.at), value), after = multiply_add(slope, set(to.at), value);
      const V near_from = multiply_add(steep, set(from.off), off) * more,
              near_to = multiply_add(steep, set(to.off), off) * more;
      const uint32_t above_from = above(before, near_from), above_to = above(after, near_to);
      const uint32_t told = (above_from | above(-before, near_from)) & (above_to | above(-after, near_to));
      if (valid & ~told) return false;
      set_on(row, above_from & valid, valid);
      for (uint32_t rest = (above_from ^ above_to) & valid; rest; rest &= rest - 1) {
        const int lane = __builtin_ctz(rest);
        if (!cross(rows, row + lane, off[lane], from, to, above_to >> lane & 1)) return false;
      }
    }
    return true;
  }
  bool cross(const ArmRows& rows, int64_t row, double off, ArmPoint from, ArmPoint to, bool up) {
    const double value = rows.value[row], slope = rows.slope[row];
    const double at = std::min(to.at, std::max(from.at, -value / slope));
    const double far = (std::fabs(value + slope * at) + off) / std::fabs(slope) * kInflateNorm + kQuotientUnderflow;
    if (!(far <= radius_)) return false;
    crossings_.push_back({{at, far}, row, up});
    return true;
  }

  bool crosses(int64_t row, size_t first, size_t end) const {
    for (size_t i = first; i < end; ++i)
      if (crossings_[i].row == row) return true;
    return false;
  }
  void copy(const ArmRows& from, const ArmRows& to, int64_t begin) const {
    const int64_t n = system_->rows - begin;
    std::copy_n(from.value + begin, n, to.value + begin), std::copy_n(from.slope + begin, n, to.slope + begin);
    std::copy_n(from.error + begin, n, to.error + begin), std::copy_n(from.size + begin, n, to.size + begin);
  }
  // What the rows of later stages take from one that is on.
  void pass_on(const StageView& stage, int64_t row, const ArmRows& from, const ArmRows& to) const {
    const double* __restrict__ const column = stage.columns + (row - stage.begin) * stage.stride - stage.end;
    const double value = from.value[row], slope = from.slope[row];
    const double size = std::fabs(value) + radius_ * std::fabs(slope);
    const double error = (from.error[row] + gamma_ * from.size[row]) * kInflateNorm;
    double* __restrict__ const values = to.value, * __restrict__ const slopes = to.slope;
    double* __restrict__ const errors = to.error, * __restrict__ const sizes = to.size;
    for (int64_t r = stage.end; r < system_->rows; ++r) {
      const double weight = column[r], much = std::fabs(weight);
      values[r] += weight * value, slopes[r] += weight * slope;
      errors[r] += much * error, sizes[r] += much * size;
    }
  }

  const System* system_ = nullptr;
  Patterns* patterns_ = nullptr;
  double radius_ = 0, gamma_ = 0;
  size_t n_ = 0, level_size_ = 0;
  std::vector<uint64_t> on_;  // a bit for each row
  Doubles numbers_;           // of each stage: ArmRows
  std::vector<Crossing> crossings_;
};

}  // namespace

ArmCounts PLR_COUNT_ARMS(const ArmSystems& systems, int64_t stages, const std::shared_ptr<NetworkDigits>& digits,
                         const Groups& groups, const EngineOptions& given, EngineProgress& progress) {
  EngineOptions options = given;
  const int64_t lines = groups.lines(), rows = systems.begin[systems.points], d = systems.dimensions;
  const int64_t bytes = (lines + 7) / 8;
  ArmCounts out;
  out.changes.assign(static_cast<size_t>(systems.points * bytes), 0);
  std::vector<uint8_t> on(static_cast<size_t>(lines));
  const std::vector<double> nothing(static_cast<size_t>(std::max(rows, d)), 0.0);
  const double* columns = systems.columns;
  Patterns patterns;
  ArmWalk walk;
  options.cells = &patterns;
  std::vector<StageView> views(static_cast<size_t>(stages));
  for (int64_t i = 0; i < systems.points && !progress.stop; ++i) {
    const int64_t first = systems.begin[i], n = systems.begin[i + 1] - first, stride = n + kColumnPadding;
    patterns.restart(n);
    const uint8_t* const bits = systems.on + i * bytes;
    for (int64_t line = 0; line < lines; ++line) on[static_cast<size_t>(line)] = bits[line / 8] >> (line % 8) & 1;
    const double corners[] = {-systems.radii[i], 0, systems.radii[i], 0};
    for (int64_t l = 0; l < stages; ++l) {
      const int64_t* const begin = systems.stage_begin + i * (stages + 1) + l;
      views[static_cast<size_t>(l)] = {begin[0], begin[1], n, columns + begin[0] * stride + begin[1], stride};
    }
    System system{{views.data(), stages},
                  lines,
                  n,
                  systems.line + first,
                  on.data(),
                  nullptr,
                  nothing.data(),
                  systems.affine + systems.arms * rows + first,
                  systems.error + first,
                  nullptr,
                  corners,
                  2,
                  groups.table(),
                  groups.zero()};
    columns += n * stride;
    for (int64_t arm = 0; arm < systems.arms && n; ++arm) {
      system.a = systems.affine + arm * rows + first;
      if (!options.force_exact) {
        const size_t before = patterns.size();
        if (walk.walk(system, systems.radii[i], patterns)) {
          out.decisions.filter += n;
          continue;
        }
        patterns.resize(before);
      }
      const double* const direction = systems.directions + ((systems.shared ? 0 : i * systems.arms) + arm) * d;
      const ExactRows exact(digits, {d, direction, nothing.data(), systems.origins + i * d, corners, 2, nullptr},
                            groups);
      const EngineResult found = PLR_ENUMERATE(system, options, exact, progress);
      out.decisions.filter += found.decisions.filter, out.decisions.exact += found.decisions.exact;
      out.decisions.zeros += found.decisions.zeros;
    }
    uint8_t* const changes = out.changes.data() + i * bytes;
    out.patterns.push_back(patterns.tell([&](int64_t row) {
      const int32_t line = system.line[row];
      changes[line / 8] = static_cast<uint8_t>(changes[line / 8] | 1u << line % 8);
    }));
  }
  return out;
}

}  // namespace pylinregion
