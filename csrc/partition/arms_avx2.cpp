// csrc/partition/arms_avx2.cpp
#define PLR_COUNT_ARMS count_arms_avx2
#define PLR_ENUMERATE enumerate_avx2
#include "arms.inl"
