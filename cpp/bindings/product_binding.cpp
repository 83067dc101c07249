// Products of batches of matrices, whose bits depend on the numbers alone: matmul/batched.h.
#include <pybind11/pybind11.h>

#include <string>

#include "bindings/register.h"
#include "bindings/tensor_reader.h"
#include "core/error.h"
#include "isa/dispatch.h"
#include "kernels/kernels.h"
#include "matmul/batched.h"

namespace py = pybind11;

namespace cosmic {

namespace {

[[noreturn]] void refuse(const std::string &why) { throw Error(ErrorKind::value, why); }

TensorView read_product_operand(const py::object &tensor, const std::string &what, int ndim) {
  const TensorView view = read_tensor(tensor.ptr(), what);
  if (view.dtype != DType::f32 && view.dtype != DType::f64)
    refuse(what + " must be float32 or float64: convert it with .float() or .double()");
  if (view.ndim != ndim)
    refuse(what + " must have " + std::to_string(ndim) + " dimensions, not " +
           std::to_string(view.ndim));
  return view;
}

std::string shape_text(const TensorView &view) {
  std::string text = "[";
  for (int k = 0; k < view.ndim; ++k) text += (k ? ", " : "") + std::to_string(view.sizes[k]);
  return text + "]";
}

struct ProductOperands {
  TensorView a, b, out, add;
  bool adds;
};

void check_product(const ProductOperands &of) {
  const TensorView &a = of.a, &b = of.b, &out = of.out;
  if (a.dtype != b.dtype || a.dtype != out.dtype || (of.adds && of.add.dtype != a.dtype))
    refuse("a, b, out and add must have one dtype");
  const bool fits = b.sizes[0] == a.sizes[0] && b.sizes[1] == a.sizes[2] &&
                    out.sizes[0] == a.sizes[0] && out.sizes[1] == a.sizes[1] &&
                    out.sizes[2] == b.sizes[2];
  if (!fits)
    refuse("out [batch, m, n] = a [batch, m, k] @ b [batch, k, n] does not fit: a is " +
           shape_text(a) + ", b " + shape_text(b) + ", out " + shape_text(out));
  if (of.adds && of.add.sizes[0] != out.sizes[2])
    refuse("add must have " + std::to_string(out.sizes[2]) + " elements, one a column, not " +
           std::to_string(of.add.sizes[0]));
  if (out.sizes[2] > 1 && out.strides[2] != 1) refuse("out must have rows in one run of memory");
  if (out.numel() > 0 && walk_order(out).overlaps) refuse("elements of out must not share memory");
}

template <class T> BatchedProduct<T> product_of(const ProductOperands &of) {
  const auto view = [](const TensorView &x) {
    return MatrixViewOf<T>{static_cast<const T *>(x.data), x.strides[1], x.strides[2]};
  };
  BatchedProduct<T> product;
  product.batch = of.out.sizes[0];
  product.rows = of.out.sizes[1];
  product.columns = of.out.sizes[2];
  product.depth = of.a.sizes[2];
  product.a = view(of.a);
  product.b = view(of.b);
  product.a_step = of.a.strides[0];
  product.b_step = of.b.strides[0];
  product.out = static_cast<T *>(of.out.data);
  product.out_step = of.out.strides[0];
  product.out_stride = of.out.strides[1];
  if (of.adds) {
    product.add = static_cast<const T *>(of.add.data);
    product.add_step = of.add.strides[0];
  }
  return product;
}

void exact_product(const py::object &a, const py::object &b, const py::object &out,
                   const py::object &add, const std::string &accumulate, int threads,
                   const std::string &isa) {
  ProductOperands of = {read_product_operand(a, "a", 3),
                        read_product_operand(b, "b", 3),
                        read_product_operand(out, "out", 3),
                        {},
                        !add.is_none()};
  if (of.adds) of.add = read_product_operand(add, "add", 1);
  check_product(of);
  const Accumulate how = accumulate_named(accumulate);
  const ProductKernels &kernels = *(isa.empty() ? chosen_kernels() : kernels_for(isa)).products;
  const py::gil_scoped_release released;
  if (of.a.dtype == DType::f32)
    multiply_batched(kernels, product_of<float>(of), how, threads);
  else
    multiply_batched(kernels, product_of<double>(of), how, threads);
}

} // namespace

void register_product(py::module_ &m) {
  m.def("exact_product", &exact_product, py::arg("a"), py::arg("b"), py::arg("out"), py::arg("add"),
        py::arg("accumulate"), py::arg("threads"), py::arg("isa") = "");
}

} // namespace cosmic
