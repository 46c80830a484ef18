// csrc/partition/dense_fold_avx512.cpp
#define PLR_FOLD_STAGE fold_stage_avx512
#include "dense_fold.inl"
