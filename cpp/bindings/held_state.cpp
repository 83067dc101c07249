#include "bindings/held_state.h"

#include <utility>

#include "core/error.h"

namespace py = pybind11;

namespace cosmic {

HeldState::HeldState(const py::dict &own, const std::string &prefix) {
  set_dict(own.ptr());
  items_.reserve(own.size());
  for (const auto &[key, value] : own) {
    Item item;
    item.key = py::reinterpret_borrow<py::object>(key);
    item.value = py::reinterpret_borrow<py::object>(value);
    const std::string name = py::str(key);
    const bool is_number = PyLong_Check(value.ptr()) || PyFloat_Check(value.ptr());
    const bool untouched = name.compare(prefix.size(), 7, "packed_") == 0; // by a step
    item.is_tensor = !is_number && !untouched;
    if (item.is_tensor) item.place = place_of(value.ptr(), name);
    identities_.emplace_back(key.ptr(), value.ptr());
    items_.push_back(std::move(item));
  }
}

std::string HeldState::name_of(const Item &item, const std::string &owner) {
  return "state '" + std::string(py::str(item.key)) + "' of " + owner;
}

bool HeldState::is_within(PyObject *dict) const {
  if (PyDict_GET_SIZE(dict) != size_) return false; // one that was added may be meant for us
  PyObject *key = nullptr, *value = nullptr;
  auto expected = identities_.begin();
  for (Py_ssize_t at = 0; expected != identities_.end() && PyDict_Next(dict, &at, &key, &value);) {
    if (key != expected->first) continue; // somebody else's
    if (value != expected->second) return false;
    ++expected;
  }
  return expected == identities_.end();
}

HeldState::Seen HeldState::look(const std::string &owner) const {
  Seen seen = Seen::same;
  for (const Item &item : items_) {
    if (!item.is_tensor) continue;
    switch (item.place.look(item.value.ptr())) {
    case TensorPlace::Seen::same:
      break;
    case TensorPlace::Seen::moved:
      seen = Seen::moved;
      break;
    case TensorPlace::Seen::changed:
      return Seen::changed;
    case TensorPlace::Seen::unreadable:
      place_of(item.value.ptr(), name_of(item, owner)); // says why, by the tensor's name
      return Seen::changed;
    }
  }
  return seen;
}

py::dict HeldState::own() const {
  py::dict out;
  for (const Item &item : items_) out[item.key] = item.value;
  return out;
}

void HeldState::append_to(py::list &tensors, py::list &addresses) const {
  for (const Item &item : items_) {
    if (!item.is_tensor) continue;
    tensors.append(item.value);
    addresses.append(item.place.address());
  }
}

void HeldState::follow(const std::string &owner) {
  for (Item &item : items_)
    if (item.is_tensor) item.place = place_of(item.value.ptr(), name_of(item, owner));
}

} // namespace cosmic
