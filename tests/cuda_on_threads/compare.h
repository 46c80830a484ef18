// What the comparisons of CUDA kernels with CPU kernels share.
#pragma once
#include <cstdint>
#include <cstring>
#include <vector>

// Counts a comparison; one that fails is printed, with the size of the case.
void same(bool equal, const char* what, int64_t points, int64_t vertices, int64_t neurons);

template <class T> bool equal_bytes(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

void compare_chains();
