// csrc/partition/arms_avx512.cpp
#define PLR_COUNT_ARMS count_arms_avx512
#define PLR_ENUMERATE enumerate_avx512
#include "arms.inl"
