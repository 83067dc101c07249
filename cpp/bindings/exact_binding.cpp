// Doors to exact/: functions of elements, dropout, fills and rotary tables.
#include <cmath>

#include "bindings/exact_operands.h"
#include "bindings/register.h"
#include "exact/elements.h"

namespace py = pybind11;

namespace cosmic {

namespace {

constexpr const char *kMapNames[] = {
#define COSMIC_MAP(name, Map) #name,
    COSMIC_MAPS(COSMIC_MAP)
#undef COSMIC_MAP
};

MapAt map_named(const std::string &op) {
  std::string names;
  for (int k = 0; k < kMaps; ++k) {
    if (op == kMapNames[k]) return static_cast<MapAt>(k);
    names += (k ? ", " : "") + std::string(kMapNames[k]);
  }
  throw Error(ErrorKind::value, "op '" + op + "' is none of " + names);
}

void exact_map(const std::string &op, const py::object &x, const py::object &out, int threads,
               const std::string &isa) {
  const MapAt map = map_named(op);
  const ExactOperands operands(x, "x");
  const int64_t count = operands.first().numel();
  void *to = operands.data(out, "out", count);
  const ExactKernels &kernels = exact_kernels_named(isa);
  in_type_of(operands, [&](auto zero) {
    using Real = decltype(zero);
    map_elements(kernels, map, static_cast<const Real *>(operands.first().data), count,
                 static_cast<Real *>(to), threads);
  });
}

void exact_map_back(const std::string &op, const py::object &x, const py::object &grad,
                    const py::object &out, int threads, const std::string &isa) {
  const MapAt map = map_named(op);
  const ExactOperands operands(x, "x");
  const int64_t count = operands.first().numel();
  const void *along = operands.data(grad, "grad", count);
  void *to = operands.data(out, "out", count);
  const ExactKernels &kernels = exact_kernels_named(isa);
  in_type_of(operands, [&](auto zero) {
    using Real = decltype(zero);
    map_elements_back(kernels, map, static_cast<const Real *>(operands.first().data),
                      static_cast<const Real *>(along), count, static_cast<Real *>(to), threads);
  });
}

void exact_dropout(const py::object &x, const py::object &out, double p, uint64_t key, int threads,
                   const std::string &isa) {
  if (!(p >= 0 && p < 1)) throw Error(ErrorKind::value, "p must lie in [0, 1)");
  const ExactOperands operands(x, "x");
  const int64_t count = operands.first().numel();
  void *to = operands.data(out, "out", count);
  const ExactKernels &kernels = exact_kernels_named(isa);
  in_type_of(operands, [&](auto zero) {
    using Real = decltype(zero);
    drop_elements(kernels, static_cast<const Real *>(operands.first().data), count, p, key,
                  static_cast<Real *>(to), threads);
  });
}

void exact_uniform(const py::object &out, double low, double high, uint64_t key, int threads,
                   const std::string &isa) {
  if (!(low <= high) || !std::isfinite(high - low))
    throw Error(ErrorKind::value, "low must be at most high, and both finite");
  const ExactOperands operands(out, "out");
  const ExactKernels &kernels = exact_kernels_named(isa);
  in_type_of(operands, [&](auto zero) {
    using Real = decltype(zero);
    fill_uniform(kernels, low, high, key, operands.first().numel(),
                 static_cast<Real *>(operands.first().data), threads);
  });
}

void exact_normal(const py::object &out, double mean, double std, uint64_t key, int threads,
                  const std::string &isa) {
  if (!(std >= 0) || !std::isfinite(std) || !std::isfinite(mean))
    throw Error(ErrorKind::value, "mean and std must be finite, and std at least 0");
  const ExactOperands operands(out, "out");
  const ExactKernels &kernels = exact_kernels_named(isa);
  in_type_of(operands, [&](auto zero) {
    using Real = decltype(zero);
    fill_normal(kernels, mean, std, key, operands.first().numel(),
                static_cast<Real *>(operands.first().data), threads);
  });
}

void exact_inverse_frequencies(double base, const py::object &out, const std::string &isa) {
  if (!(base > 0) || !std::isfinite(base))
    throw Error(ErrorKind::value, "base must be positive and finite");
  const ExactOperands operands(out, "out");
  if (!operands.f64()) throw Error(ErrorKind::tensor, "out must be float64");
  fill_inverse_frequencies(exact_kernels_named(isa), base, operands.first().numel(),
                           static_cast<double *>(operands.first().data));
}

void exact_rotary_tables(const py::object &positions, const py::object &frequencies, double scaling,
                         const py::object &cos, const py::object &sin, int threads,
                         const std::string &isa) {
  const ExactOperands table(cos, "cos"), speeds(frequencies, "inverse_frequencies");
  if (!speeds.f64()) throw Error(ErrorKind::tensor, "inverse_frequencies must be float64");
  const RowsOf shape(table.first(), "cos");
  const int64_t half = speeds.first().numel();
  if (shape.columns != 2 * half)
    throw Error(ErrorKind::value, "cos must have two columns for each inverse frequency");
  const int64_t *at = read_int64(positions, "positions", shape.rows);
  void *sines = table.data(sin, "sin", shape.rows * shape.columns);
  const ExactKernels &kernels = exact_kernels_named(isa);
  in_type_of(table, [&](auto zero) {
    using Real = decltype(zero);
    fill_rotary(kernels, at, shape.rows, static_cast<const double *>(speeds.first().data), half,
                scaling, static_cast<Real *>(table.first().data), static_cast<Real *>(sines),
                threads);
  });
}

} // namespace

void register_exact_elements(py::module_ &m) {
  m.def("exact_map", &exact_map, py::arg("op"), py::arg("x"), py::arg("out"), py::arg("threads"),
        py::arg("isa") = "");
  m.def("exact_map_backward", &exact_map_back, py::arg("op"), py::arg("x"), py::arg("grad"),
        py::arg("out"), py::arg("threads"), py::arg("isa") = "");
  m.def("exact_dropout", &exact_dropout, py::arg("x"), py::arg("out"), py::arg("p"), py::arg("key"),
        py::arg("threads"), py::arg("isa") = "");
  m.def("exact_uniform", &exact_uniform, py::arg("out"), py::arg("low"), py::arg("high"),
        py::arg("key"), py::arg("threads"), py::arg("isa") = "");
  m.def("exact_normal", &exact_normal, py::arg("out"), py::arg("mean"), py::arg("std"),
        py::arg("key"), py::arg("threads"), py::arg("isa") = "");
  m.def("exact_inverse_frequencies", &exact_inverse_frequencies, py::arg("base"), py::arg("out"),
        py::arg("isa") = "");
  m.def("exact_rotary_tables", &exact_rotary_tables, py::arg("positions"),
        py::arg("inverse_frequencies"), py::arg("scaling"), py::arg("cos"), py::arg("sin"),
        py::arg("threads"), py::arg("isa") = "");
}

} // namespace cosmic
