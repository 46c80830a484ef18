// csrc/partition/timeline.h -- the breakpoints of a window of a segment, in order, and where they are exactly. Internal
// linkage: see sign_changes_row.inl for why.
#pragma once
#include <cmath>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "segment_rows.h"

namespace pylinregion {
namespace {

template <class T> auto& at(T& values, int64_t i) { return values[static_cast<size_t>(i)]; }
template <class T> int64_t count(const T& values) { return static_cast<int64_t>(values.size()); }

// A stretch of the segment, in units of 2^-40; times t within it run from 0 to 1 again.
constexpr int64_t kWhole = int64_t{1} << 40;

struct Window {
  int64_t begin, end;
  double t() const { return std::ldexp(static_cast<double>(begin), -40); }
  double width() const { return std::ldexp(static_cast<double>(end - begin), -40); }
};

constexpr int32_t kStart = -1, kEnd = -2;  // instead of a line

// A breakpoint, or an end of the window.
struct Event {
  double t, d;     // |t - exact| <= d
  int32_t line;    // the first line found to change here; kStart, kEnd
  int32_t change;  // the first of changes_, or -1
  int64_t place;   // in order_
};

struct Change {
  int32_t line, next;
};

class Timeline {
 protected:
  Timeline(std::shared_ptr<SegmentNetwork> digits, int64_t lines)
      : exact_(std::move(digits)), on_(static_cast<size_t>(lines)) {}

  void restart(Window window) {
    window_ = window;
    events_.assign({{0, 0, kStart, -1, 0}, {1, 0, kEnd, -1, 1}});
    order_.assign({0, 1});
    changes_.clear();
    points_.clear();
  }
  int64_t breakpoints() const { return count(order_) - 2; }
  Event& event(int64_t k) { return at(events_, at(order_, k)); }
  const Event& event(int64_t k) const { return at(events_, at(order_, k)); }

  // A new event; it has its place when `reorder` is given it.
  int32_t add(double t, double d, int32_t line) {
    events_.push_back({t, d, line, -1, 0});
    return static_cast<int32_t>(events_.size()) - 1;
  }
  void change(Event& event, int32_t line) {
    changes_.push_back({line, event.change});
    event.change = static_cast<int32_t>(changes_.size()) - 1;
  }
  void reorder(std::vector<int32_t>& order) {
    order_.swap(order);
    for (int64_t k = 0; k < count(order_); ++k) event(k).place = k;
  }

  // on_, or the changes at events in order_, are others than before.
  void forget_patterns() { placed_ = -1; }
  // A line in interval k, of the stages so far.
  SegmentRow exact_row(int64_t line, int64_t k) {
    if (placed_ < 0) now_ = on_, placed_ = 0;
    const auto toggle = [&](int64_t number) {
      for (int32_t c = event(number).change; c >= 0; c = at(changes_, c).next) at(now_, at(changes_, c).line) ^= 1;
    };
    while (placed_ < k) toggle(++placed_);
    while (placed_ > k) toggle(placed_--);
    return exact_.row(line, now_.data());
  }
  // Where event k is.
  const SegmentPoint& point(int64_t k) {
    const int32_t number = at(order_, k), line = event(k).line;
    const auto found = points_.find(number);
    if (found != points_.end()) return found->second;
    if (line == kStart) return points_[number] = {BigInt(kWhole - window_.begin), BigInt(window_.begin)};
    if (line == kEnd) return points_[number] = {BigInt(kWhole - window_.end), BigInt(window_.end)};
    return points_[number] = zero_of(exact_row(line, k));
  }

  SegmentRows exact_;
  Window window_{0, kWhole};
  std::vector<Event> events_;   // by number
  std::vector<int32_t> order_;  // their numbers in the order of t
  std::vector<Change> changes_;
  std::vector<uint8_t> on_;  // the pattern of the first interval
  std::unordered_map<int32_t, SegmentPoint> points_;

 private:
  std::vector<uint8_t> now_;  // the pattern of interval placed_
  int64_t placed_ = -1;
};

}  // namespace
}  // namespace pylinregion
