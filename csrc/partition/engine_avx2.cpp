// csrc/partition/engine_avx2.cpp
#define PLR_ENUMERATE enumerate_avx2
#include "enumerate.inl"
