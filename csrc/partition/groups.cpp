// csrc/partition/groups.cpp -- see groups.h.
#include "groups.h"

#include <algorithm>
#include <climits>
#include <stdexcept>

#include "exact_rows.h"

namespace pylinregion {

Groups::Groups(int64_t lines, const std::vector<std::pair<int64_t, int64_t>>& groups, const int64_t* zero,
               const int64_t* same, const int64_t* multiples, bool central)
    : lines_(lines),
      first_pair_{lines},
      of_line_(static_cast<size_t>(lines), -1),
      zero_(zero),
      same_(same),
      multiples_(multiples),
      central_(central) {
  for (const auto& [first, size] : groups) {
    if (first < 0 || size < 1 || first + size > lines) throw std::invalid_argument("a group has lines that are none");
    std::fill_n(of_line_.begin() + first, size, static_cast<int32_t>(ranges_.size()));
    ranges_.push_back({first, size});
    first_pair_.push_back(first_pair_.back() + size * (size - 1) / 2);
  }
  if (first_pair_.back() > INT32_MAX) throw std::overflow_error("there are too many pairs of candidates of maxima");
}

std::pair<int64_t, int64_t> Groups::same_members(int64_t pair) const {
  const auto [i, j] = table().members(pair);
  return std::minmax({same_[i], same_[j]});
}

bool Groups::follows(int64_t i, int64_t j, int64_t k) const {
  if (central_ && i >= kAxisRow && j >= kAxisRow) return true;
  if (k >= lines_) {
    const auto [p, q] = same_members(k);
    if (p == q) return true;
  }
  return same_row(k, i) || same_row(k, j) || third_of_three(i, j, k) || both_zero(i, j, k);
}

bool Groups::same_row(int64_t i, int64_t j) const {
  if (i == j) return true;
  if (multiples_ && i >= 0 && j >= 0 && i < lines_ && j < lines_) return multiples_[i] == multiples_[j];
  return i >= lines_ && j >= lines_ && same_members(i) == same_members(j);
}

bool Groups::third_of_three(int64_t i, int64_t j, int64_t k) const {
  if (i < lines_ || j < lines_ || k < lines_) return false;
  const auto p = same_members(i), q = same_members(j), r = same_members(k);
  for (const int64_t common : {p.first, p.second}) {
    if (common != q.first && common != q.second) continue;
    const int64_t one = p.first + p.second - common, other = q.first + q.second - common;
    if (std::minmax({one, other}) == std::pair(r.first, r.second)) return true;
  }
  return false;
}

bool Groups::both_zero(int64_t i, int64_t j, int64_t k) const {
  if (k < lines_) return false;
  const auto [p, q] = table().members(k);
  return zero_[p] >= 0 && zero_[q] >= 0 && std::minmax({zero_[p], zero_[q]}) == std::minmax({i, j});
}

}  // namespace pylinregion
