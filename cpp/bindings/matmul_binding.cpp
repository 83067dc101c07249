// Doors to matmul/ for tests and benchmarks.
#include <pybind11/stl.h>

#include <algorithm>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "bindings/register.h"
#include "bindings/tensor_reader.h"
#include "core/error.h"
#include "isa/dispatch.h"
#include "kernels/kernels.h"
#include "matmul/orthogonalize.h"
#include "matmul/product.h"
#include "matmul/product_kernels.h"

namespace py = pybind11;

namespace cosmic {

namespace {

using Coefficients3 = std::vector<std::tuple<double, double, double>>;

TensorView read_matrix(const py::object &tensor, const char *what) {
  const TensorView view = read_tensor(tensor.ptr(), what);
  if (view.dtype != DType::f32 || view.ndim != 2)
    throw Error(ErrorKind::value, std::string(what) + " must be a matrix in float32");
  return view;
}

MatrixView as_matrix(const TensorView &view) {
  return {static_cast<const float *>(view.data), view.strides[0], view.strides[1]};
}

// With rows that are runs of memory.
TensorView read_written(const py::object &tensor, const char *what) {
  const TensorView view = read_matrix(tensor, what);
  const bool runs = view.sizes[1] <= 1 || view.strides[1] == 1;
  if (!runs || (view.sizes[0] > 1 && view.strides[0] < view.sizes[1]))
    throw Error(ErrorKind::value, std::string(what) + " must have rows in one run of memory");
  return view;
}

// Not filled.
std::unique_ptr<float[]> room_for(int64_t floats) {
  return std::unique_ptr<float[]>(new float[static_cast<size_t>(floats)]);
}

const Kernels &kernels_named(const std::string &isa) {
  return isa.empty() ? chosen_kernels() : kernels_for(isa);
}

Product product_of(const py::object &a, const py::object &b, const py::object &out) {
  const TensorView left = read_matrix(a, "a"), right = read_matrix(b, "b");
  const TensorView to = read_written(out, "out");
  Product product;
  product.rows = left.sizes[0];
  product.depth = left.sizes[1];
  product.columns = right.sizes[1];
  if (right.sizes[0] != product.depth || to.sizes[0] != product.rows ||
      to.sizes[1] != product.columns)
    throw Error(ErrorKind::value, "a, b and out must fit one another");
  product.a = as_matrix(left);
  product.b = as_matrix(right);
  product.c = static_cast<float *>(to.data);
  product.c_stride = to.strides[0];
  return product;
}

void multiply(const py::object &a, const py::object &b, const py::object &out, int threads,
              const std::string &isa) {
  const Product product = product_of(a, b, out);
  const TileKernel &kernel = kernels_named(isa).products->f32;
  threads = std::max(threads, 1);
  const py::gil_scoped_release released;
  const bool wide = product.columns >= product.rows;
  const auto scratch =
      room_for(product_scratch(std::min(product.rows, product.columns), product.depth, threads));
  if (wide)
    multiply_by_columns(kernel, product, scratch.get(), threads);
  else
    multiply_by_rows(kernel, product, scratch.get(), threads);
}

void multiply_symmetrically(const py::object &a, const py::object &b, const py::object &out,
                            int threads, const std::string &isa) {
  const Product product = product_of(a, b, out);
  if (product.rows != product.columns)
    throw Error(ErrorKind::value, "a symmetric product is square");
  const TileKernel &kernel = kernels_named(isa).products->f32;
  const py::gil_scoped_release released;
  const auto scratch = room_for(symmetric_scratch(product.rows, product.depth));
  multiply_symmetric(kernel, product, true, scratch.get(), std::max(threads, 1));
}

NewtonSchulz steps_from(const Coefficients3 &coefficients) {
  if (coefficients.empty() || coefficients.size() > static_cast<size_t>(kMostIterations))
    throw Error(ErrorKind::value,
                "there must be from 1 to " + std::to_string(kMostIterations) + " steps");
  NewtonSchulz steps;
  for (const auto &[a, b, c] : coefficients) {
    steps.a[steps.iterations] = a;
    steps.b[steps.iterations] = b;
    steps.c[steps.iterations++] = c;
  }
  return steps;
}

Coefficients3 coefficients_of(const NewtonSchulz &steps) {
  Coefficients3 out;
  for (int k = 0; k < steps.iterations; ++k) out.emplace_back(steps.a[k], steps.b[k], steps.c[k]);
  return out;
}

void orthogonalize_tensor(const py::object &matrix, const Coefficients3 &coefficients, double norm,
                          double eps, double scale, int threads, const std::string &isa,
                          bool by_gram) {
  NewtonSchulz steps = steps_from(coefficients);
  steps.by_gram = by_gram;
  const TensorView view = read_written(matrix, "matrix");
  const SubMatrix sub = {static_cast<float *>(view.data), view.sizes[0], view.sizes[1],
                         view.strides[0]};
  const Kernels &kernels = kernels_named(isa);
  threads = std::max(threads, 1);
  const py::gil_scoped_release released;
  const auto scratch = room_for(orthogonalize_scratch(sub.rows, sub.columns, threads));
  orthogonalize(kernels, sub, norm, eps, scale, steps, scratch.get(), threads);
}

} // namespace

void register_matmul(py::module_ &m) {
  m.def("matmul", &multiply, py::arg("a"), py::arg("b"), py::arg("out"), py::arg("threads"),
        py::arg("isa") = "");
  m.def("symmetric_product", &multiply_symmetrically, py::arg("a"), py::arg("b"), py::arg("out"),
        py::arg("threads"), py::arg("isa") = "");
  m.def("orthogonalize", &orthogonalize_tensor, py::arg("matrix"), py::arg("steps"),
        py::arg("norm"), py::arg("eps"), py::arg("scale"), py::arg("threads"), py::arg("isa") = "",
        py::arg("by_gram") = false);
  m.def(
      "polar_express", [](int iterations) { return coefficients_of(polar_express(iterations)); },
      py::arg("iterations"));
  m.def(
      "muon_quintic", [](int iterations) { return coefficients_of(muon_quintic(iterations)); },
      py::arg("iterations"));
}

} // namespace cosmic
