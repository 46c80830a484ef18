// csrc/partition/engine_avx512.cpp
#define PLR_ENUMERATE enumerate_avx512
#include "enumerate.inl"
