#include <exception>
#include <utility>

#include "bindings/register.h"
#include "core/error.h"

namespace py = pybind11;

namespace cosmic {

void register_errors() {
  py::register_local_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(std::move(pointer));
    } catch (const Error &error) {
      PyObject *type = error.kind == ErrorKind::type    ? PyExc_TypeError
                       : error.kind == ErrorKind::value ? PyExc_ValueError
                                                        : PyExc_RuntimeError;
      PyErr_SetString(type, error.what());
    }
  });
}

} // namespace cosmic
