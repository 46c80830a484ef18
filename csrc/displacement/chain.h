// csrc/displacement/chain.h -- which neurons of a chain of dense layers change around points, without evaluating the
// vertices: docs/performance.md explains how, docs/exactness.md proves what is certain.
//
// The vertices of pair p of a point are h = c + e_p + o_p and c + e_p - o_p at every layer: c is what the network makes
// of the point itself, in float64; the displacements o and e are in the dtype of the count. An affine layer maps each
// by itself, and e is 0 as long as no neuron tells x + r v_p, x - r v_p and x apart.
#pragma once
#include <cstdint>

#include "../kink.h"

namespace pylinregion {

// An affine map and the kinks on it: units that are z above 0, and slope times z below (ReLU: 0; abs: -1).
struct ChainLayer {
  int64_t inputs, neurons;
  const void* weight;       // [neurons, inputs] in the dtype of the displacements; null in the first layer of a split
  const double* exact;      // the same in float64
  const double* bias_size;  // [neurons] |bias|
  const double* row_norm;   // [neurons] >= the 2-norm of a row
  const double* slope;      // [neurons], or null: all 0
  double frobenius, spectral, bias_norm;  // >= these norms of the weight and the bias
  double steepest;                        // >= |slope| and 1
  const double* column_square;            // [inputs] >= the square of the 2-norm of a column
};

struct Chain {
  int64_t n_layers;
  const ChainLayer* layers;
  int64_t pairs;
  // Split: what the first layer makes of the frame, [neurons, pairs up to a multiple of 16] float64 with zeros behind
  // the pairs; the largest absolute values, [neurons]; and >= the 2-norm of what it makes of any pair.
  const double* directions;
  const double* direction_size;
  double direction_norm;
};

struct ChainPoints {
  int64_t n;
  const double* const* centre;  // [layers]: [n, neurons] pre-activations at the points
  const double* const* norm;  // [layers]: [n] >= 2-norm of what the layer takes at the points; of a split's first: of x
  const double* radius;       // [n], of a split
  // Dense: what the first layer takes at the vertices, [n, 2 pairs, inputs] in the dtype of the displacements, all
  // plus, then all minus; and what its centre takes, [n, inputs].
  const void* vertices;
  const double* base;
};

struct ChainCounts {
  int64_t* changes;  // [n, changes_stride], of the layers in order: overwritten
  int64_t changes_stride;
  int64_t* ambiguous;  // [n]: signs within the proven bound of float64
  // [n, 2 pairs, classes_stride] or null: vertices of a point have one pattern in this chain if their numbers are the
  // same
  int64_t* classes;
  int64_t classes_stride;
  int64_t* work;  // [n]: bytes of vectors that were multiplied
  // [layers, n]: 1 where a pre-activation is NaN or infinite, else untouched. Such a point has no classes and no work.
  uint8_t* nonfinite;
};

void chain_counts_cpu(DType dtype, const Chain& chain, const ChainPoints& points, const ChainCounts& out, int threads);

// The same where all numbers are in a device's memory (the arrays of layers, centres and norms are not), in one launch.
// scratch: chain_scratch_cuda() bytes of the current device.
int64_t chain_scratch_cuda(DType dtype, const Chain& chain, int64_t points);
void chain_counts_cuda(DType dtype, const Chain& chain, const ChainPoints& points, const ChainCounts& out,
                       void* scratch, void* stream);

using ChainKernel = void (*)(DType dtype, const Chain& chain, const ChainPoints& points, const ChainCounts& out,
                             int64_t begin, int64_t end);
void chain_portable(DType, const Chain&, const ChainPoints&, const ChainCounts&, int64_t begin, int64_t end);
void chain_avx2(DType, const Chain&, const ChainPoints&, const ChainCounts&, int64_t begin, int64_t end);
void chain_avx512(DType, const Chain&, const ChainPoints&, const ChainCounts&, int64_t begin, int64_t end);
void chain_neon(DType, const Chain&, const ChainPoints&, const ChainCounts&, int64_t begin, int64_t end);

}  // namespace pylinregion
