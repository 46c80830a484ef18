// csrc/linear.h -- y = x W^T + b for the narrow layers of a batch that is in the cache.
//
// A batch of vertices times a few hundred neurons is small enough that the packing and blocking of a BLAS are in
// the way, and not every BLAS uses a processor's widest vectors. Here the weights are packed once per count.
//
// Packed weights: columns (neurons) are cut into groups of 64 bytes, the groups into panels of at most 4. A panel of g
// groups holds 1 + in rows of g * (64 / size) numbers: the bias, then one row for each input. Padding columns are 0.
#pragma once
#include "kink.h"

namespace pylinregion {

constexpr int64_t kPanelGroups = 4;

struct PanelPlan {  // panels of nearly equal width: the first `wider` have one group more
  int64_t groups, panels, narrow, wider;
  explicit PanelPlan(int64_t columns, int64_t group)
      : groups((columns + group - 1) / group),
        panels((groups + kPanelGroups - 1) / kPanelGroups),
        narrow(panels ? groups / panels : 0),
        wider(panels ? groups % panels : 0) {}
  int64_t width(int64_t panel) const { return narrow + (panel < wider); }
  int64_t first_group(int64_t panel) const { return panel * narrow + (panel < wider ? panel : wider); }
};

struct LinearLayer {
  int64_t in, out;
  const void* packed;  // [panels][1 + in][width * group]
};

// Numbers that pack_linear writes.
int64_t packed_size(DType dtype, int64_t in, int64_t out);
// weight [out, in], bias [out] or null, both contiguous float32 or float64.
void pack_linear(DType dtype, const void* weight, const void* bias, int64_t in, int64_t out, void* packed);
// x [rows, in] contiguous, y [rows, out] contiguous, not overlapping. Needs simd() other than portable.
void linear_cpu(DType dtype, const void* x, int64_t rows, const LinearLayer& layer, void* y, int threads);

using LinearRows = void (*)(DType dtype, const void* x, int64_t rows, const LinearLayer& layer, void* y);
void linear_rows_avx2(DType dtype, const void* x, int64_t rows, const LinearLayer& layer, void* y);
void linear_rows_avx512(DType dtype, const void* x, int64_t rows, const LinearLayer& layer, void* y);
void linear_rows_neon(DType dtype, const void* x, int64_t rows, const LinearLayer& layer, void* y);

}  // namespace pylinregion
