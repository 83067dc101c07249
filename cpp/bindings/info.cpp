#include <pybind11/stl.h>

#include "bindings/register.h"
#include "isa/dispatch.h"
#include "kernels/kernels.h"
#include "parts/rule.h"
#include "plan/self_test.h"
#include "reference/reference_training.h"

namespace py = pybind11;

namespace cosmic {

namespace {

py::dict build_info() {
  py::dict info;
  info["version"] = COSMIC_VERSION;
  info["compiler"] = COSMIC_COMPILER;
  info["flags"] = COSMIC_FLAGS;
#if defined(_OPENMP)
  info["openmp"] = _OPENMP;
#else
  info["openmp"] = 0;
#endif
  info["isa"] = chosen_kernels().isa;
  info["isa_available"] = available_isas();
  return info;
}

py::dict tested() {
  SelfTest test;
  {
    const py::gil_scoped_release released;
    test = self_test();
  }
  py::dict found;
  found["combinations"] = test.combinations;
  found["isas"] = test.isas;
  found["fingerprint"] = test.fingerprint;
  return found;
}

std::string train_reference(const std::string &accumulate, int threads, const std::string &isa,
                            int64_t steps) {
  const Accumulate how = accumulate_named(accumulate);
  const Kernels &kernels = isa.empty() ? chosen_kernels() : kernels_for(isa);
  const py::gil_scoped_release released;
  return reference_training(kernels, how, threads, steps);
}

} // namespace

void register_info(py::module_ &m) {
  m.attr("__version__") = COSMIC_VERSION;
  m.attr("BLOCK") = kBlock;
  m.def("build_info", &build_info);
  m.def("available_isas", &available_isas);
  m.def("self_test", &tested);
  m.def("reference_training", &train_reference, py::arg("accumulate"), py::arg("threads"),
        py::arg("isa") = "", py::arg("steps") = kReferenceSteps);
  m.def("sign_scale", &rules::sign_scale, py::arg("beta1"));
}

} // namespace cosmic
