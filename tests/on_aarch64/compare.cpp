// The kernels in the processor's own instruction set against the portable ones and against plain references.
#include <cstdio>

#include "comparison.h"
#include "simd.h"

namespace {
int failures = 0;
int comparisons = 0;
}  // namespace

void same(bool equal, const char* what, std::initializer_list<int64_t> sizes) {
  ++comparisons;
  if (equal) return;
  ++failures;
  std::printf("%s differ for", what);
  for (const int64_t size : sizes) std::printf(" %lld", static_cast<long long>(size));
  std::printf("\n");
}

int main() {
  const char* name = pylinregion::simd_name();
  if (std::strcmp(name, "neon") != 0) {
    std::printf("the instruction set is %s, not neon\n", name);
    return 1;
  }
  compare_signs();
  compare_linear();
  compare_chains();
  compare_slices();
  std::printf("%s against portable and references: %d of %d comparisons failed\n", name, failures, comparisons);
  return failures ? 1 : 0;
}
