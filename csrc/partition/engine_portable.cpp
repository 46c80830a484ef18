// csrc/partition/engine_portable.cpp
#define PLR_ENUMERATE enumerate_portable
#include "enumerate.inl"
