// csrc/label_changes.h -- kinks whose piece is a label: the winner of a max-pool window, the side of a
// comparison. labels is [points, vertices, neurons]; a neuron changes if its labels are not all the same.
// The labels, cut to 32 bits, are the neuron's part of the pattern: neuron n of vertex v of point b is the
// 32-bit number n of patterns[(b * vertices + v) * row_words ...]; the padding of an odd count is 0.
#pragma once
#include <cstdint>

namespace pylinregion {

enum class LabelType : int { uint8 = 0, int64 = 1 };

void label_changes_cpu(LabelType type, const void* labels, int64_t points, int64_t vertices, int64_t neurons,
                       uint64_t* patterns, int64_t row_words, int64_t* changes, int64_t changes_stride, int threads);
void label_changes_cuda(LabelType type, const void* labels, int64_t points, int64_t vertices, int64_t neurons,
                        uint64_t* patterns, int64_t row_words, int64_t* changes, int64_t changes_stride, void* stream);

}  // namespace pylinregion
