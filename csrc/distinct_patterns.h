// csrc/distinct_patterns.h -- how many of a point's vertices have different patterns.
// patterns is [points, vertices, words]; distinct [points]. Rows are compared by a 128-bit hash, and rows
// of equal hash bit by bit, so the count is exact whatever the hash does.
#pragma once
#include "kink.h"

namespace pylinregion {

struct Hash128 {
  uint64_t low, high;
};

PLR_HD inline uint64_t mix64(uint64_t x) {  // finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014)
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

// What word w adds to the hash of its row: sums may be taken in any order, also by many threads.
PLR_HD inline Hash128 hash_word(uint64_t word, int64_t w) {
  const uint64_t place = mix64(static_cast<uint64_t>(w) + 0x9e3779b97f4a7c15ull);
  const uint64_t low = mix64(word ^ place);
  return {low, mix64(low + word)};
}
PLR_HD inline Hash128 add(Hash128 a, Hash128 b) { return {a.low + b.low, a.high + b.high}; }
PLR_HD inline bool equal(Hash128 a, Hash128 b) { return a.low == b.low && a.high == b.high; }
PLR_HD inline bool less(Hash128 a, Hash128 b) { return a.high != b.high ? a.high < b.high : a.low < b.low; }

// weak_hash gives every row the same hash, so that a test reaches the comparison of the bits.
void distinct_patterns_cpu(const uint64_t* patterns, int64_t points, int64_t vertices, int64_t words, int64_t* distinct,
                           bool weak_hash, int threads);
// hashes: scratch of [points, vertices] Hash128 on the device.
void distinct_patterns_cuda(const uint64_t* patterns, int64_t points, int64_t vertices, int64_t words,
                            int64_t* distinct, bool weak_hash, Hash128* hashes, void* stream);

}  // namespace pylinregion
