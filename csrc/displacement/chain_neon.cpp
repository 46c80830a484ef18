// csrc/displacement/chain_neon.cpp -- chains with the vectors of neon.
#include "../lanes_neon.h"
#define PLR_CHAIN chain_neon
#include "chain.inl"
