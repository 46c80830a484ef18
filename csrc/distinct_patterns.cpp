// csrc/distinct_patterns.cpp -- sort a point's rows by hash; within a run of equal hashes compare the bits.
#include "distinct_patterns.h"

#include <algorithm>

#include "parallel.h"

namespace pylinregion {

void distinct_patterns_cpu(const uint64_t* patterns, int64_t points, int64_t vertices, int64_t words, int64_t* distinct,
                           bool weak_hash, int threads) {
  struct Key {
    Hash128 hash;
    const uint64_t* row;
  };
  parallel_ranges(points, threads, [&](int64_t begin, int64_t end) {
    std::vector<Key> keys(static_cast<size_t>(vertices));
    std::vector<uint64_t> differs(static_cast<size_t>(words));
    std::vector<int64_t> hashed;        // the words that are not the same in all rows; the rest tells no row apart
    std::vector<const uint64_t*> seen;  // the different rows of one hash: one, but for collisions
    for (int64_t b = begin; b < end; ++b) {
      const uint64_t* first = patterns + b * vertices * words;
      std::fill(differs.begin(), differs.end(), uint64_t{0});
      for (int64_t v = 1; v < vertices; ++v)
        for (int64_t w = 0; w < words; ++w) differs[static_cast<size_t>(w)] |= first[v * words + w] ^ first[w];
      hashed.clear();
      for (int64_t w = 0; w < words && !weak_hash; ++w)
        if (differs[static_cast<size_t>(w)]) hashed.push_back(w);
      for (int64_t v = 0; v < vertices; ++v) {
        const uint64_t* row = first + v * words;
        Hash128 hash{0, 0};
        for (const int64_t w : hashed) hash = add(hash, hash_word(row[w], w));
        keys[static_cast<size_t>(v)] = {hash, row};
      }
      std::sort(keys.begin(), keys.end(),
                [](const Key& left, const Key& right) { return less(left.hash, right.hash); });
      int64_t count = 0;
      for (size_t i = 0; i < keys.size(); ++i) {
        if (i == 0 || !equal(keys[i].hash, keys[i - 1].hash)) seen.clear();
        const bool known = std::any_of(seen.begin(), seen.end(),
                                       [&](const uint64_t* row) { return std::equal(row, row + words, keys[i].row); });
        if (known) continue;
        seen.push_back(keys[i].row);
        ++count;
      }
      distinct[b] = count;
    }
  });
}

}  // namespace pylinregion
