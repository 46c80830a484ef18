// csrc/partition/dense_fold_portable.cpp
#define PLR_FOLD_STAGE fold_stage_portable
#include "dense_fold.inl"
