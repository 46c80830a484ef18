// csrc/partition/bindings.h
#pragma once
#include <pybind11/pybind11.h>

namespace pylinregion {
void bind_partition(pybind11::module_& m);
void bind_arms(pybind11::module_& m);
void bind_trace(pybind11::module_& m);
void bind_dense_fold(pybind11::module_& m);
}  // namespace pylinregion
