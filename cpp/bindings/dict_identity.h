// Whether a dict still holds what it held: by identity and order, without hashing, because a step
// must not cost look-ups for every parameter.
#pragma once

#include <pybind11/pybind11.h>

#include <utility>
#include <vector>

namespace cosmic {

class DictIdentity {
public:
  DictIdentity() = default;
  explicit DictIdentity(PyObject *dict) {
    PyObject *key = nullptr, *value = nullptr;
    for (Py_ssize_t at = 0; PyDict_Next(dict, &at, &key, &value);)
      items_.emplace_back(pybind11::reinterpret_borrow<pybind11::object>(key),
                          pybind11::reinterpret_borrow<pybind11::object>(value));
  }

  bool matches(PyObject *dict) const {
    if (static_cast<size_t>(PyDict_GET_SIZE(dict)) != items_.size()) return false;
    PyObject *key = nullptr, *value = nullptr;
    auto expected = items_.begin();
    for (Py_ssize_t at = 0; PyDict_Next(dict, &at, &key, &value); ++expected)
      if (expected->first.ptr() != key || expected->second.ptr() != value) return false;
    return true;
  }

private:
  // held, so that nothing else can come to their addresses
  std::vector<std::pair<pybind11::object, pybind11::object>> items_;
};

} // namespace cosmic
