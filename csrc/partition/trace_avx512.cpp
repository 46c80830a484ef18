// csrc/partition/trace_avx512.cpp
#define PLR_MAKE_TRACER make_tracer_avx512
#include "trace.inl"
