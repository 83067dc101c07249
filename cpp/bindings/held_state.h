// What one parameter's state held when the plan took its addresses, and whether it still does.
// Everybody may read, replace and extend `optimizer.state`: a step looks at each of its tensors
// before it touches any memory.
#pragma once

#include <pybind11/pybind11.h>

#include <string>
#include <utility>
#include <vector>

#include "bindings/tensor_reader.h"

namespace cosmic {

class HeldState {
public:
  enum class Seen {
    same,    // nothing has changed that a step reads
    moved,   // some tensor's memory is elsewhere: take the addresses anew
    changed, // an entry was exchanged, or is a tensor of another kind: make the plan anew
  };

  HeldState() = default;
  // Of a dict that holds nothing but the plan's own entries, whose keys begin with `prefix`.
  HeldState(const pybind11::dict &own, const std::string &prefix);

  // The dict that the entries are in from now on; others may keep entries of theirs there.
  void set_dict(PyObject *dict) { size_ = PyDict_GET_SIZE(dict); }

  // Whether a dict has these objects in this order, and no more entries than it had: no look-ups,
  // as a step asks for every parameter.
  bool is_within(PyObject *dict) const;

  // Looks at every tensor. `owner` names the parameter in errors.
  Seen look(const std::string &owner) const;

  // The own entries as a dict.
  pybind11::dict own() const;

  // Appends the tensors, and where they lie.
  void append_to(pybind11::list &tensors, pybind11::list &addresses) const;

  // After `moved`: remembers where the tensors lie now. Throws Error if one lies outside of its
  // storage.
  void follow(const std::string &owner);

private:
  struct Item {
    pybind11::object key, value; // held, so that nothing else can come to their addresses
    bool is_tensor = false;
    TensorPlace place;
  };
  static std::string name_of(const Item &item, const std::string &owner);

  Py_ssize_t size_ = 0; // of the dict
  std::vector<Item> items_;
  std::vector<std::pair<PyObject *, PyObject *>> identities_; // theirs, close together
};

} // namespace cosmic
