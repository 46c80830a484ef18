// csrc/partition/trace_portable.cpp
#define PLR_MAKE_TRACER make_tracer_portable
#include "trace.inl"
