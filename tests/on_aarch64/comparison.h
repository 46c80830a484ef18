// What the comparisons share. Each file has a function that makes its own; compare.cpp runs them.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

void same(bool equal, const char* what, std::initializer_list<int64_t> sizes);  // counts, and says what differs
void compare_signs();
void compare_linear();
void compare_chains();
void compare_slices();

inline size_t length(int64_t n) { return static_cast<size_t>(n); }

// Equal to the bit, NaN and -0 included.
template <class T> bool equal_bytes(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

// Normal numbers; with `grid`, rounded to quarters, so that sums are exact and ties are frequent.
template <class T> std::vector<T> numbers(std::mt19937& random, int64_t count, bool grid, double size = 1) {
  std::normal_distribution<double> normal;
  std::vector<T> values(length(count));
  for (T& value : values) {
    const double z = size * normal(random);
    value = static_cast<T>(grid ? std::round(z * 4) / 4 : z);
  }
  return values;
}
