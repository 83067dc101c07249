// Entry of the extension `cosmic._core`.
#include "bindings/register.h"

PYBIND11_MODULE(_core, m) {
  m.doc() = "COSMIC's compiled core: plans, kernels and quantization. Links nothing of torch.";
  cosmic::register_budget(m);
  cosmic::register_copies(m);
  cosmic::register_errors(m);
  cosmic::register_exact_elements(m);
  cosmic::register_exact_rows(m);
  cosmic::register_info(m);
  cosmic::register_layout(m);
  cosmic::register_master(m);
  cosmic::register_matmul(m);
  cosmic::register_parts(m);
  cosmic::register_plan(m);
  cosmic::register_product(m);
  cosmic::register_quantize(m);
  cosmic::register_wire(m);
}
