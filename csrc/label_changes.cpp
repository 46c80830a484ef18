// csrc/label_changes.cpp
#include "label_changes.h"

#include "parallel.h"

namespace pylinregion {
namespace {

template <class T> void run(const T* labels, int64_t points, int64_t vertices, int64_t neurons, uint64_t* patterns,
                            int64_t row_words, int64_t* changes, int64_t changes_stride, int threads) {
  parallel_ranges(points, threads, [&](int64_t begin, int64_t end) {
    std::vector<uint8_t> differs(static_cast<size_t>(neurons));
    for (int64_t b = begin; b < end; ++b) {
      const T* first = labels + b * vertices * neurons;
      std::fill(differs.begin(), differs.end(), uint8_t{0});
      for (int64_t v = 0; v < vertices; ++v) {
        const T* row = first + v * neurons;
        for (int64_t n = 0; n < neurons; ++n) differs[static_cast<size_t>(n)] |= row[n] != first[n];
        if (!patterns) continue;
        uint64_t* to = patterns + (b * vertices + v) * row_words;
        for (int64_t n = 0; n < neurons; n += 2) {
          const uint64_t low = static_cast<uint32_t>(row[n]);
          const uint64_t high = n + 1 < neurons ? static_cast<uint32_t>(row[n + 1]) : 0u;
          to[n / 2] = low | high << 32;
        }
      }
      int64_t changed = 0;
      for (const uint8_t differ : differs) changed += differ;
      changes[b * changes_stride] += changed;
    }
  });
}
}  // namespace

void label_changes_cpu(LabelType type, const void* labels, int64_t points, int64_t vertices, int64_t neurons,
                       uint64_t* patterns, int64_t row_words, int64_t* changes, int64_t changes_stride, int threads) {
  if (type == LabelType::uint8)
    run(static_cast<const uint8_t*>(labels), points, vertices, neurons, patterns, row_words, changes, changes_stride,
        threads);
  else
    run(static_cast<const int64_t*>(labels), points, vertices, neurons, patterns, row_words, changes, changes_stride,
        threads);
}

}  // namespace pylinregion
