// Parameters that wrap the tensor which is here: torch's DTensors.
#pragma once

#include <pybind11/pybind11.h>

#include <string>

namespace cosmic {

// Whether a tensor is of a type that keeps its memory in a local tensor.
bool wraps_local(PyObject *tensor);

// The tensor that has the memory: a DTensor's local one, and what a collective has yet to fill once
// it is there; any other tensor is that itself.
pybind11::object local_of(pybind11::object tensor);

// Throws Error unless the gradient of a DTensor is one, and lies as its parameter does: the same
// mesh, the same placements; or if it alone is one. `name` names the parameter.
void check_gradient_placed(const pybind11::object &param, const pybind11::object &gradient,
                           const std::string &name);

} // namespace cosmic
