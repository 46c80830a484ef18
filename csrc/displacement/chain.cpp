// csrc/displacement/chain.cpp -- threads, and the choice of the instruction set.
#include "chain.h"

#include "../parallel.h"
#include "../simd.h"

namespace pylinregion {

void chain_counts_cpu(DType dtype, const Chain& chain, const ChainPoints& points, const ChainCounts& out, int threads) {
  ChainKernel kernel = chain_portable;
#if defined(__x86_64__)
  if (simd() == Simd::avx2) kernel = chain_avx2;
  if (simd() == Simd::avx512) kernel = chain_avx512;
#elif defined(__aarch64__)
  if (simd() == Simd::neon) kernel = chain_neon;
#endif
  parallel_ranges(points.n, threads,
                  [&](int64_t begin, int64_t end) { kernel(dtype, chain, points, out, begin, end); });
}

}  // namespace pylinregion
