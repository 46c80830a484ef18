// csrc/displacement/chain_avx512.cpp -- chains with the vectors of avx512.
#include "../lanes_avx512.h"
#define PLR_CHAIN chain_avx512
#include "chain.inl"
