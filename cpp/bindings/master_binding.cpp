// Parameters in bf16 with 8 bits more, as users get them.
#include <string>

#include "bindings/register.h"
#include "bindings/tensor_reader.h"
#include "core/error.h"
#include "plan/bind.h"
#include "plan/transfer.h"

namespace py = pybind11;

namespace cosmic {

namespace {

void check_like(const TensorView &view, const TensorView &param, const std::string &what) {
  if (!view.same_sizes(param))
    throw Error(ErrorKind::value, what + " has shape " + sizes_text(view) +
                                      "; expected the parameter's, " + sizes_text(param));
}

void join_master(const py::object &param, const py::object &low, const py::object &to) {
  Row row;
  row.name = "the parameter";
  const TensorView view = read_tensor(param.ptr(), row.name);
  const WalkOrder order = bind_param(row, view);
  const TensorView plane = read_bytes(low.ptr(), "its lower bits");
  const TensorView out = read_tensor(to.ptr(), "the result");
  check_like(plane, view, "its lower bits");
  check_like(out, view, "the result");
  if (view.dtype != DType::bf16 || out.dtype != DType::f32)
    throw Error(ErrorKind::tensor, std::string("the parameter is ") + dtype_name(view.dtype) +
                                       " and the result " + dtype_name(out.dtype) +
                                       "; expected bfloat16 and float32");
  if (!walk_along(plane, order).contiguous())
    throw Error(ErrorKind::value, "its lower bits are not laid out in memory as the parameter");
  row.low = static_cast<int8_t *>(plane.data);
  decode_param(row, {out.data, out.dtype, walk_along(out, order)});
}

} // namespace

void register_master(py::module_ &m) {
  m.def("join_master", &join_master, py::arg("param"), py::arg("low"), py::arg("to"));
}

} // namespace cosmic
