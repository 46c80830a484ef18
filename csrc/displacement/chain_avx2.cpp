// csrc/displacement/chain_avx2.cpp -- chains with the vectors of avx2.
#include "../lanes_avx2.h"
#define PLR_CHAIN chain_avx2
#include "chain.inl"
