// csrc/partition/dense_fold_avx2.cpp
#define PLR_FOLD_STAGE fold_stage_avx2
#include "dense_fold.inl"
