// csrc/displacement/bindings.h
#pragma once
#include <pybind11/pybind11.h>

namespace pylinregion {
void bind_displacement(pybind11::module_& m);
}  // namespace pylinregion
