// csrc/sign_changes.h -- one pass over the pre-activations of a kink: which neurons change, on which piece
// every neuron is at every vertex, and the activation.
//
// Layout. Pre-activations are [points, vertices, neurons], dense, in any order of the neurons that is the
// same for all vertices. Patterns are bits: plane k (breakpoint k) of vertex v of point b is
//   patterns[(b * vertices + v) * row_words + k * words_for_bits(neurons)  ...]   bit n%64 of word n/64,
// set if z > breakpoint[k]; padding bits are 0.
#pragma once
#include "kink.h"

namespace pylinregion {

// Where the pre-activations come from: ready-made, or from a shared frame that an affine map was applied
// to: z[b, p] = centre[b] + radius[b] * direction[p], z[b, P + p] = centre[b] - radius[b] * direction[p].
struct Preactivations {
  const void* dense;       // [points, vertices, neurons], or null:
  const void* centre;      // [points, neurons]
  const void* directions;  // [vertices / 2, neurons]
  const double* radius;    // [points], on the host for the CPU, on the device for CUDA
  int64_t points, vertices, neurons;
};

struct SignChanges {
  void* activation;    // [points, vertices, neurons], may be the dense input; null: not wanted
  uint64_t* patterns;  // see above; null: not wanted
  int64_t row_words;   // words between two vertices of the patterns
  int64_t* changes;    // the count of point b is added to changes[b * changes_stride]
  int64_t changes_stride;
  uint8_t* nonfinite;  // [points], set to 1 where a pre-activation is NaN or infinite; else untouched
};

void sign_changes_cpu(DType dtype, const Preactivations& z, const Kink& kink, const SignChanges& out, int threads);
void sign_changes_cuda(DType dtype, const Preactivations& z, const Kink& kink, const SignChanges& out, void* stream);

// One vertex at a time, in each instruction set: what the CPU path is made of.
struct Row {
  const void* dense;      // [neurons], or null: centre + scale * direction
  const void* centre;     // [neurons]
  const void* direction;  // [neurons]
  double scale;           // +radius or -radius
  int64_t neurons;
  void* activation;  // [neurons] or null
  uint64_t* bits;    // n_breakpoints planes of words_for_bits(neurons)
};
using RowKernel = bool (*)(DType dtype, const Row& row, const Kink& kink);  // true if all pre-activations are finite
bool row_portable(DType dtype, const Row& row, const Kink& kink);
bool row_avx2(DType dtype, const Row& row, const Kink& kink);
bool row_avx512(DType dtype, const Row& row, const Kink& kink);
bool row_neon(DType dtype, const Row& row, const Kink& kink);

}  // namespace pylinregion
