// csrc/partition/settle.inl -- Engine: which lines of the current stage cross a cell.
#pragma once
#include "engine.h"

namespace pylinregion {
namespace {

// A line is on, or off, all over the cell that the walk is in, and so in some cell that it will find.
PLR_ENGINE void Engine::set_on(int32_t line, bool on) {
  on_[line] = on;
  if (options_.changes) tally_.sides[line] |= on ? kSomeOn : kSomeOff;
}

// Lines that do not cross the cell are settled: the others stay, and what is on is substituted.
PLR_STEP void Engine::settle(Cell& cell) {
  const Unsettled& all = cell.unsettled;
  const Polygon& polygon = cell.polygon;
  const Arena::Mark mark = arena_.mark();
  const int64_t room = padded(all.n + kLanes);
  int32_t* const numbers = arena_.take<int32_t>(3 * room);
  SomeRows on{take_forms(all.n), 0, numbers};
  Unsettled left{{take_forms(all.n), 0, numbers + room}, numbers + 2 * room};
  const bool needed = options_.cells != nullptr || options_.changes || cell.stage + 1 < n_stages_;
  decisions_.filter += all.n * polygon.n;
  for (int64_t i = 0; i < all.n; i += kLanes) {
    const V a = load(all.a + i), b = load(all.b + i), c = load(all.c + i), p = load(all.p + i);
    const V t = (p + (abs(a) + abs(b)) * set(polygon.d_max)) * set(factor_);
    V low = set(INFINITY), high = set(-INFINITY);
    for (int64_t v = 0; v < polygon.n; ++v) {
      const V z = multiply_add(a, set(polygon.x[v]), multiply_add(b, set(polygon.y[v]), c));
      low = min(z, low), high = max(z, high);
    }
    const uint32_t valid = first_lanes(all.n - i);
    uint32_t is_on = above(low, t) & valid, is_off = above(-high, t) & valid;
    uint32_t crosses = above(high, t) & above(-low, t) & valid;
    uint32_t doubtful = valid & ~(crosses | is_on | is_off);
    for (; doubtful; doubtful &= doubtful - 1) {
      const int bit = lowest_bit(doubtful);
      const int sign = settled_sign(cell, i + bit);
      (sign == 0 ? crosses : sign > 0 ? is_on : is_off) |= 1u << bit;
    }
    if (needed && !outside_.is_open())
      each_bit(is_on | is_off, [&](int bit) { set_on(all.line[i + bit], is_on >> bit & 1); });
    compress(numbers + on.n, all.row + i, is_on);
    on.n = put_forms(on, on.n, a, b, c, p, is_on);
    compress(numbers + room + left.n, all.row + i, crosses),
        compress(numbers + 2 * room + left.n, all.line + i, crosses);
    left.n = put_forms(left, left.n, a, b, c, p, crosses);
  }
  if (left.n == all.n) return arena_.release(mark);  // what a walk along many lines holds must not grow by its square
  if (on.n && cell.stage + 1 < n_stages_) substitute(cell, on);
  cell.unsettled = left;
}

// Some of a vector of rows, from row n on; returns their end.
PLR_ENGINE int64_t Engine::put_forms(const Forms& to, int64_t n, V a, V b, V c, V p, uint32_t bits) {
  compress(to.a + n, a, bits), compress(to.b + n, b, bits), compress(to.c + n, c, bits);
  return compress(to.p + n, p, bits) - to.p;
}

// 0 if unsettled line k crosses the cell, else its side; identically 0 is off.
PLR_COLD int Engine::settled_sign(const Cell& cell, int64_t k) {
  const Arena::Mark mark = arena_.mark();
  int8_t* signs = arena_.take<int8_t>(padded(cell.polygon.n));
  double* z = arena_.take<double>(padded(cell.polygon.n));
  vertex_signs(cell, k, signs, z);
  bool some_above = false, some_below = false;
  for (int64_t v = 0; v < cell.polygon.n; ++v) some_above |= signs[v] > 0, some_below |= signs[v] < 0;
  if (options_.pieces) see_zeros(cell.polygon, signs);
  arena_.release(mark);
  return some_above && some_below ? 0 : some_above ? 1 : -1;
}

}  // namespace
}  // namespace pylinregion
