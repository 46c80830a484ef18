// csrc/convolution/convolution.h -- a convolution, or its transpose, of many vectors in float64. The columns of a fold
// are hundreds of images, most of them 0 outside of a few places: vectors that are not 0 in the same places are taken
// together, a lane each, and only what they reach is computed.
#pragma once
#include <cstdint>
#include <vector>

#include "../partition/linear_map.h"

namespace pylinregion {

// x: [n, width], out: [n, rows], to which it is added: width and rows of the map, or, backwards, the other way round.
// Each number that is added is a sum of at most map.products products: pieces of at most so many of one place of the
// kernel, as many one behind the other as are no more together, are summed, with fused multiply-adds or without; then
// these sums, one behind the other (pylinregion/lowering/convolution_map.py counts how often a product is rounded).
constexpr int64_t kConvolutionRun = 32;
struct Convolved {
  const LinearMap& map;
  bool forwards;
  const double* x;
  double* out;
  int64_t n;
  int threads;
};
void convolve_portable(const Convolved&);
void convolve_avx2(const Convolved&);
void convolve_avx512(const Convolved&);
void convolve(const Convolved&);  // by the best this machine has

// The images of n units, each times a factor, are added to out: [n, rows]. An image is 0 but where a kernel reaches.
struct Images {
  const LinearMap& map;
  const int64_t* units;
  const double* factors;
  double* out;
  int64_t n;
  int threads;
};
void add_images(const Images&);

}  // namespace pylinregion
