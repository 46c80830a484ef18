// csrc/partition/trace_bindings.h
#pragma once
#include <pybind11/pybind11.h>

namespace pylinregion {
void bind_trace(pybind11::module_& m);
}
