// Python tensors as borrowed views, through DLPack's C exchange API (torch 2.10 and up) or, for
// other libraries, through `__dlpack__`. Nothing of torch is linked.
#pragma once

#include <pybind11/pybind11.h>

#include <string>
#include <vector>

#include "core/strided.h"

namespace cosmic {

// DLPack's type codes.
constexpr int kIntCode = 0, kUnsignedCode = 1, kFloatCode = 2;

// A CPU tensor of another dtype than the four of the core, such as the int64 step counter.
struct RawTensor {
  void *data = nullptr;
  int code = 0, bits = 0; // DLPack's type code, bits of one element
  int64_t numel = 0;
  bool contiguous = false;
};

// A complex tensor is read as its real view, with a last dimension of 2. `what` names the tensor
// in errors ("gradient of parameter 'head.weight'"). Throws Error for tensors that are not dense
// CPU tensors of a floating dtype.
TensorView read_tensor(PyObject *tensor, const std::string &what);

// The geometry and the memory of an int8 tensor; its view's dtype means nothing. Throws Error for
// another dtype.
TensorView read_bytes(PyObject *tensor, const std::string &what);

// What `tensor.grad` is, without looking the attribute up for every parameter of every step.
pybind11::object gradient_of(PyObject *tensor);

// The tensor itself, or a copy with its values where it is a lazily conjugated or negated view, as
// autograd makes them of complex numbers' parts.
pybind11::object resolved(pybind11::object tensor, bool complex);

// Whether a real tensor of this geometry could be a lazily negated view. Only `imag` of a conjugate
// makes one, and all its strides are even. Asking torch costs more than all other reading.
bool can_be_negated(const TensorView &view);

// The memory of a tensor that is expected to look like `known`, as an earlier read_tensor saw it;
// nullptr if it has changed (or has no elements): read it anew. Cheaper than reading.
void *data_if_unchanged(PyObject *tensor, const TensorView &known, const std::string &what);

// As read_tensor for any dtype.
RawTensor read_raw(PyObject *tensor, const std::string &what);

// Where a tensor of any dtype lies and how, so that one look says whether it still does.
class TensorPlace {
public:
  enum class Seen { same, moved, changed, unreadable };
  Seen look(PyObject *tensor) const;
  int64_t address() const { return static_cast<int64_t>(reinterpret_cast<intptr_t>(data_)); }

private:
  friend TensorPlace place_of(PyObject *tensor, const std::string &what);
  void *data_ = nullptr;
  int code_ = 0, bits_ = 0; // DLPack's type code, bits of one element
  int ndim_ = 0;
  std::vector<int64_t> geometry_; // sizes, then strides
};

// Throws Error, as read_tensor does, for what is no CPU tensor, has no memory of its own or lies
// outside of its storage.
TensorPlace place_of(PyObject *tensor, const std::string &what);

// Throws Error if a tensor's elements, which reach `bytes` from `data` on, lie outside of its
// storage, as they do where that was resized behind its back. Looking costs: where memory has
// moved.
void check_within_storage(PyObject *tensor, const void *data, int64_t bytes,
                          const std::string &what);

} // namespace cosmic
