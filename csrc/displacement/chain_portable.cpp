// csrc/displacement/chain_portable.cpp -- chains on any processor.
#include "../one_lane.h"
namespace pylinregion {
namespace {
template <class T> struct Lanes : OneLane<T> {};
}  // namespace
}  // namespace pylinregion
#define PLR_CHAIN chain_portable
#include "chain.inl"
