#include "bindings/shard_reader.h"

#include <iterator>
#include <utility>

#include "core/error.h"

namespace py = pybind11;

namespace cosmic {

namespace {

// What a type of tensors is; asked of every gradient of every step.
struct Kind {
  PyTypeObject *type = nullptr; // held, so that no other type can come to its address
  bool wraps = false, waits = false;
};

Kind kind_of(PyTypeObject *type) {
  static Kind known[4];
  static size_t next = 0;
  for (const Kind &kind : known)
    if (kind.type == type) return kind;
  auto *object = reinterpret_cast<PyObject *>(type);
  Kind &kind = known[next++ % std::size(known)];
  Py_INCREF(object);
  Py_XDECREF(reinterpret_cast<PyObject *>(kind.type));
  kind.type = type;
  kind.wraps = PyObject_HasAttrString(object, "_local_tensor") == 1;
  kind.waits = PyObject_HasAttrString(object, "trigger_wait") == 1;
  return kind;
}

py::object attribute(const py::object &object, PyObject *name) {
  PyObject *value = PyObject_GetAttr(object.ptr(), name);
  if (!value) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(value);
}

bool equal(const py::object &a, const py::object &b) {
  if (a.is(b)) return true;
  const int same = PyObject_RichCompareBool(a.ptr(), b.ptr(), Py_EQ);
  if (same < 0) throw py::error_already_set();
  return same == 1;
}

bool has_sums(const py::object &placements) {
  for (const py::handle placement : placements)
    if (placement.attr("is_partial")().cast<bool>()) return true;
  return false;
}

[[noreturn]] void throw_misplaced(const std::string &name, const std::string &how,
                                  const std::string &expected) {
  throw Error(ErrorKind::value, "gradient of " + name + " is " + how + "; expected " + expected);
}

} // namespace

bool wraps_local(PyObject *tensor) { return kind_of(Py_TYPE(tensor)).wraps; }

py::object local_of(py::object tensor) {
  static PyObject *local = PyUnicode_InternFromString("_local_tensor");
  if (wraps_local(tensor.ptr())) tensor = attribute(tensor, local);
  if (kind_of(Py_TYPE(tensor.ptr())).waits) return tensor.attr("trigger_wait")();
  return tensor;
}

void check_gradient_placed(const py::object &param, const py::object &gradient,
                           const std::string &name) {
  static PyObject *spec = PyUnicode_InternFromString("_spec");
  static PyObject *placements = PyUnicode_InternFromString("placements");
  static PyObject *mesh = PyUnicode_InternFromString("mesh");
  if (!wraps_local(param.ptr()))
    throw_misplaced(name, "a DTensor, the parameter a plain tensor",
                    "a plain tensor, such as its full_tensor(), or a parameter that is a DTensor");
  if (!wraps_local(gradient.ptr()))
    throw_misplaced(name, "a plain tensor, the parameter a DTensor",
                    "a DTensor of the same mesh and placements: DTensor.from_local(gradient, "
                    "param.device_mesh, param.placements)");
  const py::object own = attribute(param, spec), of_gradient = attribute(gradient, spec);
  if (own.is(of_gradient)) return;
  const py::object wanted = attribute(own, placements), given = attribute(of_gradient, placements);
  if (has_sums(given))
    throw_misplaced(name,
                    "a partial sum, of placements " + std::string(py::str(given)) +
                        ", whose parts are still to be added",
                    "the parameter's placements, " + std::string(py::str(wanted)) +
                        ": param.grad.redistribute(placements=param.placements), or a backward "
                        "under FSDP, which reduces gradients");
  if (!equal(wanted, given))
    throw_misplaced(name, "a DTensor of placements " + std::string(py::str(given)),
                    "the parameter's, " + std::string(py::str(wanted)) +
                        ": param.grad.redistribute(placements=param.placements)");
  if (!equal(attribute(own, mesh), attribute(of_gradient, mesh)))
    throw_misplaced(name, "a DTensor on " + std::string(py::str(attribute(of_gradient, mesh))),
                    "the parameter's mesh, " + std::string(py::str(attribute(own, mesh))));
}

} // namespace cosmic
