#include <exception>
#include <utility>

#include "bindings/register.h"
#include "core/error.h"

namespace py = pybind11;

namespace cosmic {

namespace {

PyObject *unsupported_tensor = nullptr; // held for as long as the process lives

constexpr const char *kUnsupportedTensor =
    "A tensor cannot be used: its layout is sparse, its device is not the CPU, its dtype is not "
    "one of those that are stepped, or it has no memory of its own. Both a TypeError and, as "
    "torch's own optimizers raise for sparse gradients, a RuntimeError.";

} // namespace

void register_errors(py::module_ &m) {
  const py::tuple bases = py::make_tuple(py::handle(PyExc_TypeError), //
                                         py::handle(PyExc_RuntimeError));
  unsupported_tensor = PyErr_NewExceptionWithDoc("cosmic.UnsupportedTensorError",
                                                 kUnsupportedTensor, bases.ptr(), nullptr);
  if (!unsupported_tensor) throw py::error_already_set();
  m.attr("UnsupportedTensorError") = py::handle(unsupported_tensor);
  py::register_local_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(std::move(pointer));
    } catch (const Error &error) {
      PyObject *type = error.kind == ErrorKind::tensor  ? unsupported_tensor
                       : error.kind == ErrorKind::value ? PyExc_ValueError
                       : error.kind == ErrorKind::index ? PyExc_IndexError
                                                        : PyExc_RuntimeError;
      PyErr_SetString(type, error.what());
    }
  });
}

} // namespace cosmic
