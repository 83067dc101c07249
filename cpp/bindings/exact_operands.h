// What the doors to exact/ have in common: tensors of one real type that are runs of memory.
#pragma once

#include <pybind11/pybind11.h>

#include <string>

#include "bindings/tensor_reader.h"
#include "core/error.h"
#include "isa/dispatch.h"
#include "kernels/kernels.h"

namespace cosmic {

inline const ExactKernels &exact_kernels_named(const std::string &isa) {
  return *(isa.empty() ? chosen_kernels() : kernels_for(isa)).exact;
}

inline bool is_run_of_memory(const TensorView &view) {
  int64_t expected = 1;
  for (int d = view.ndim - 1; d >= 0; --d) {
    if (view.sizes[d] != 1 && view.strides[d] != expected) return false;
    expected *= view.sizes[d];
  }
  return true;
}

// The float tensors of one call.
class ExactOperands {
public:
  // The first, which says the type of all.
  ExactOperands(const pybind11::object &tensor, const char *what)
      : first_(read_tensor(tensor.ptr(), what)), first_name_(what) {
    if (first_.dtype != DType::f32 && first_.dtype != DType::f64)
      throw Error(ErrorKind::tensor, std::string(what) + " must be float32 or float64; convert it "
                                                         "with .to(torch.float32)");
    check_run(first_, what);
  }

  const TensorView &first() const { return first_; }
  bool f64() const { return first_.dtype == DType::f64; }

  // Another one, with so many elements.
  void *data(const pybind11::object &tensor, const char *what, int64_t numel) const {
    const TensorView view = read_tensor(tensor.ptr(), what);
    if (view.dtype != first_.dtype)
      throw Error(ErrorKind::tensor, std::string(what) + " must have the dtype of " + first_name_);
    if (view.numel() != numel)
      throw Error(ErrorKind::value, std::string(what) + " must have " + std::to_string(numel) +
                                        " elements and has " + std::to_string(view.numel()));
    check_run(view, what);
    return view.data;
  }
  // Null for None.
  void *data_or_null(const pybind11::object &tensor, const char *what, int64_t numel) const {
    return tensor.is_none() ? nullptr : data(tensor, what, numel);
  }

  static void check_run(const TensorView &view, const char *what) {
    if (view.numel() > 0 && !is_run_of_memory(view))
      throw Error(ErrorKind::value, std::string(what) + " must be contiguous");
  }

private:
  TensorView first_;
  const char *first_name_;
};

inline const int64_t *read_int64(const pybind11::object &tensor, const char *what, int64_t numel) {
  const RawTensor raw = read_raw(tensor.ptr(), what);
  if (raw.code != kIntCode || raw.bits != 64 || !raw.contiguous)
    throw Error(ErrorKind::tensor, std::string(what) + " must be contiguous and int64");
  if (numel >= 0 && raw.numel != numel)
    throw Error(ErrorKind::value, std::string(what) + " must have " + std::to_string(numel) +
                                      " elements and has " + std::to_string(raw.numel));
  return static_cast<const int64_t *>(raw.data);
}

// Rows and columns of a matrix.
struct RowsOf {
  int64_t rows, columns;
  RowsOf(const TensorView &view, const char *what) {
    if (view.ndim != 2)
      throw Error(ErrorKind::value, std::string(what) + " must have two dimensions");
    rows = view.sizes[0];
    columns = view.sizes[1];
  }
};

// work(Real(0)) in the type of the operands, without the GIL.
template <class Work> void in_type_of(const ExactOperands &operands, const Work &work) {
  const pybind11::gil_scoped_release released;
  if (operands.f64())
    work(double(0));
  else
    work(float(0));
}

} // namespace cosmic
