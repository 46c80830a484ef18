// csrc/partition/dense_fold.h -- chains of dense layers folded over many slices, slice by slice, each in the cache:
// what docs/exactness.md, 5.6, says. Products of all slices with one matrix are made in front of it.
#pragma once
#include <cstdint>
#include <vector>

#include "aligned.h"

namespace pylinregion {

// A layer: rows z = W y + b of what the layer before gives, each with the unit s_0 z below 0 and s_1 z above.
struct DenseLayer {
  int64_t rows, width;
  const double *weights, *bias;  // [rows, width], [rows]
  const double* row_norms;       // [rows] >= their 2-norms
  const double* slopes;          // [rows, 2]: s_0, s_1
  double norm, frobenius;        // >= the spectral and the Frobenius norm of W
  double bias_norm;              // >= the 2-norm of b
  double steepest;               // >= |s| of all
  bool plain;                    // all slopes are 0 or 1
  std::vector<int32_t> zeros;    // [rows]: how many weights are 0
  int64_t first_line;            // in the network
  bool last;                     // nothing behind it has lines
};

// What slices are: around s = 0 the axes from -radius to radius and all between them, or polygons on two axes.
struct FoldShape {
  int64_t slices, axes;
  const double* radii;    // [slices], or null
  const double* corners;  // [slices, n_corners, 2], if there are no radii
  int64_t n_corners;
};

// A slice on its way. The units of the layer so far are c + sum of a_k s_k + sum of C_q max(z_q, 0) over its open lines
// q, but for `error`.
struct SliceFold {
  std::vector<int32_t> units;  // [m]: those that are more than c
  Doubles panel;               // [m, stride]: of each a, then C
  int64_t stride = 0;
  double reach = 0;    // >= |units - c|, in the 2-norm, anywhere
  double error = 0;    // >= |true - computed| likewise
  double size = 0;     // >= |units| with all terms taken without signs, likewise
  bool loose = false;  // bounds are so wide that others are worth their time
  // Lines that are open so far.
  std::vector<int32_t> lines;
  std::vector<int64_t> births;  // after each layer, from 0 before the first
  Doubles forms;                // [lines, padded axes + 1]: affine functions, the constants behind the axes
  Doubles radius, reaches;      // [lines]: max(z, 0) is within a radius of its form, whose size with it is that
  Doubles high;                 // [lines]: z is not larger
  Doubles constants, errors;    // [lines]: c and the bound of the row itself
  Doubles taken;                // of each line its row: a, and C of the lines before its layer
};

struct FoldStage {
  const DenseLayer& layer;
  const FoldShape& shape;
  const double* constants;  // [slices, rows]: W c + b
  const double* images;     // of the first layer: W times the axes, [axes, rows], or [slices, axes, rows]
  bool shared;              // as the first says
  double* units;            // [slices, rows]: c of the units, but for the last layer
  uint8_t* on;              // [slices, bytes]: bits of lines
  int64_t bytes;
  std::vector<SliceFold>& folds;
};

using FoldFunction = void (*)(const FoldStage&);
void fold_stage_portable(const FoldStage&);
void fold_stage_avx2(const FoldStage&);
void fold_stage_avx512(const FoldStage&);
FoldFunction fold_function();

// Marks slices whose rows are off by so much that decisions are expected to be left to integers, or, with `cells`,
// corners are.
void find_loose(const FoldShape& shape, bool cells, std::vector<SliceFold>& folds);

}  // namespace pylinregion
