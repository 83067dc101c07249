// What a plan's last step has seen, for Python.
#include <cmath>

#include "bindings/plan_binding.h"

namespace py = pybind11;

namespace cosmic {

namespace {

// NaN where no part asks for it.
double param_rms_of(const Row &row) {
  const bool asked = row.step_pass.square_param || (row.exact && row.gate_pass.square_param);
  return asked ? row.last.param_rms : NAN;
}

} // namespace

py::list PlanBinding::statistics() const {
  py::list out;
  for (const Row &row : plan_.rows)
    if (row.active)
      out.append(py::make_tuple(row.index, row.group, row.last.mean_abs_gradient,
                                row.last.update_rms, row.last.gate, param_rms_of(row)));
  return out;
}

py::list PlanBinding::refused() const {
  py::list out;
  for (const Row &row : plan_.rows)
    if (refused_ && row.last.nonfinite) out.append(py::make_tuple(row.index, row.last.nonfinite));
  return out;
}

int64_t PlanBinding::nonfinite() const {
  int64_t total = 0;
  for (const Row &row : plan_.rows) total += row.last.nonfinite;
  return total;
}

} // namespace cosmic
