// One function a subject, called by module.cpp.
#pragma once

#include <pybind11/pybind11.h>

namespace cosmic {

void register_budget(pybind11::module_ &m);
void register_copies(pybind11::module_ &m);
void register_errors(pybind11::module_ &m);
void register_exact_elements(pybind11::module_ &m);
void register_exact_rows(pybind11::module_ &m);
void register_info(pybind11::module_ &m);
void register_layout(pybind11::module_ &m);
void register_master(pybind11::module_ &m);
void register_matmul(pybind11::module_ &m);
void register_parts(pybind11::module_ &m);
void register_plan(pybind11::module_ &m);
void register_product(pybind11::module_ &m);
void register_quantize(pybind11::module_ &m);
void register_wire(pybind11::module_ &m);

} // namespace cosmic
