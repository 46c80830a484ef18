// csrc/partition/trace_avx2.cpp
#define PLR_MAKE_TRACER make_tracer_avx2
#include "trace.inl"
