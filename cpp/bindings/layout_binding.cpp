// What state a codec keeps for a parameter: asked when a rung is priced and its tensors are made.
#include <pybind11/stl.h>

#include <string>

#include "bindings/register.h"
#include "bindings/tensor_reader.h"
#include "core/error.h"
#include "parts/registry.h"
#include "plan/density.h"
#include "plan/direction.h"
#include "plan/layout.h"

namespace py = pybind11;

namespace cosmic {

namespace {

struct Geometry {
  TensorView view;
  WalkOrder order;
};

Geometry geometry_of(const py::object &param, const std::string &name = "param") {
  Geometry out;
  out.view = read_tensor(param.ptr(), name);
  out.order = walk_order(out.view);
  return out;
}

// A tensor that need not exist: sizes and strides are all that counts.
TensorView view_of(const std::vector<int64_t> &sizes, const std::vector<int64_t> &strides,
                   const std::string &name) {
  TensorView view;
  if (sizes.size() > static_cast<size_t>(kMaxDims) || sizes.size() != strides.size())
    throw Error(ErrorKind::value, name + " has " + std::to_string(sizes.size()) +
                                      " dimensions; at most " + std::to_string(kMaxDims) +
                                      " can be stepped");
  view.ndim = static_cast<int>(sizes.size());
  std::copy(sizes.begin(), sizes.end(), view.sizes);
  std::copy(strides.begin(), strides.end(), view.strides);
  return view;
}

py::object matrix_of(const std::vector<int64_t> &sizes, const std::vector<int64_t> &strides,
                     const std::string &name, int64_t least_columns) {
  const TensorView view = view_of(sizes, strides, name);
  const MatrixShape shape = matrix_shape(view, walk_order(view), least_columns);
  return shape ? py::object(py::make_tuple(shape.rows, shape.columns)) : py::none();
}

// Dimensions of more than one element in the order of the walk, outermost first; None where that is
// the order of the indices.
py::object walk_of(const std::vector<int64_t> &sizes, const std::vector<int64_t> &strides,
                   const std::string &name) {
  const WalkOrder order = walk_order(view_of(sizes, strides, name));
  py::tuple dims(order.ndim);
  bool by_index = true;
  for (int k = 0; k < order.ndim; ++k) {
    dims[static_cast<size_t>(k)] = order.dims[k];
    by_index &= k == 0 || order.dims[k] > order.dims[k - 1];
  }
  return by_index ? py::object(py::none()) : py::object(dims);
}

bool gradient_keeps_columns(const py::object &param, const py::object &gradient,
                            const std::string &name) {
  const Geometry g = geometry_of(param, name);
  const TensorView view = read_tensor(gradient.ptr(), name + ": gradient");
  if (!view.same_sizes(g.view) || view.dtype == DType::f64) return false; // the step will say so
  return keeps_columns({view.data, view.dtype, walk_along(view, g.order)},
                       matrix_shape(g.view, g.order));
}

py::tuple variation_of_param(const py::object &param, const std::string &name) {
  const Geometry g = geometry_of(param, name);
  const MatrixShape shape = matrix_shape(g.view, g.order);
  if (!shape || g.view.dtype == DType::f64) return py::make_tuple(0.0, 0.0);
  const Variation seen =
      variation_of({g.view.data, g.view.dtype, walk_along(g.view, g.order)}, shape);
  return py::make_tuple(seen.of_rows * static_cast<double>(shape.columns),
                        seen.of_columns * static_cast<double>(shape.rows));
}

double gradient_density(const py::object &param, const py::object &gradient,
                        const std::string &name) {
  const Geometry g = geometry_of(param, name);
  const TensorView view = read_tensor(gradient.ptr(), name + ": gradient");
  const MatrixShape shape = matrix_shape(g.view, g.order);
  if (!shape || !view.same_sizes(g.view) || view.dtype == DType::f64) return 1; // or it is refused
  return density_of({view.data, view.dtype, walk_along(view, g.order)}, shape);
}

py::list layout(const std::string &codec, bool second_moment, int64_t numel,
                const py::object &matrix) {
  MatrixShape shape;
  if (!matrix.is_none()) {
    const auto sizes = matrix.cast<py::tuple>();
    shape = {sizes[0].cast<int64_t>(), sizes[1].cast<int64_t>()};
  }
  py::list out;
  for (const Plane &plane : slot_layout(codec_named(codec), second_moment, numel, shape))
    out.append(py::make_tuple(plane.suffix, plane.dtype, plane.count, plane.shaped,
                              plane.count * plane.bits / 8));
  return out;
}

} // namespace

void register_layout(py::module_ &m) {
  m.def("slot_layout", &layout, py::arg("codec"), py::arg("second_moment"), py::arg("numel"),
        py::arg("matrix"));
  m.def("matrix_shape", &matrix_of, py::arg("sizes"), py::arg("strides"), py::arg("name"),
        py::arg("least_columns"));
  m.def("walk_order", &walk_of, py::arg("sizes"), py::arg("strides"), py::arg("name"));
  m.def("keeps_columns", &gradient_keeps_columns, py::arg("param"), py::arg("gradient"),
        py::arg("name"));
  m.def("variation", &variation_of_param, py::arg("param"), py::arg("name"));
  m.def(
      "check_memory",
      [](const py::object &tensor, const std::string &what) { place_of(tensor.ptr(), what); },
      py::arg("tensor"), py::arg("what"));
  m.def("density", &gradient_density, py::arg("param"), py::arg("gradient"), py::arg("name"));
}

} // namespace cosmic
