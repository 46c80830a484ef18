// csrc/partition/arms_portable.cpp
#define PLR_COUNT_ARMS count_arms_portable
#define PLR_ENUMERATE enumerate_portable
#include "arms.inl"
