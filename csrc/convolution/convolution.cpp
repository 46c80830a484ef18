// csrc/convolution/convolution.cpp -- see convolution.h.
#include "convolution.h"

#include "../simd.h"

namespace pylinregion {

void convolve(const Convolved& given) {
#if defined(__x86_64__)
  if (simd() == Simd::avx512) return convolve_avx512(given);
  if (simd() == Simd::avx2) return convolve_avx2(given);
#endif
  convolve_portable(given);
}

}  // namespace pylinregion
