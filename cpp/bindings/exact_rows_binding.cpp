// Doors to exact/: softmax, norms, sums, cross-entropy and the embedding's gradient.
#include <cmath>

#include "bindings/exact_operands.h"
#include "bindings/register.h"
#include "exact/rows.h"

namespace py = pybind11;

namespace cosmic {

namespace {

void check_scale(double scale) {
  if (!(scale > 0) || !std::isfinite(scale))
    throw Error(ErrorKind::value, "scale must be positive and finite");
}

// The sizes of a stack of matrices.
const int64_t *stack_of(const TensorView &view, const char *what) {
  if (view.ndim != 3)
    throw Error(ErrorKind::value, std::string(what) + " must be [matrices, rows, columns]");
  return view.sizes;
}

void exact_softmax(const py::object &x, const py::object &out, double scale, bool causal,
                   int threads, const std::string &isa) {
  check_scale(scale);
  const ExactOperands operands(x, "x");
  const int64_t *sizes = stack_of(operands.first(), "x");
  void *to = operands.data(out, "out", operands.first().numel());
  const ExactKernels &kernels = exact_kernels_named(isa);
  in_type_of(operands, [&](auto zero) {
    using Real = decltype(zero);
    softmax(kernels, {sizes[0], sizes[1], sizes[2], causal},
            static_cast<const Real *>(operands.first().data), scale, static_cast<Real *>(to),
            threads);
  });
}

void exact_softmax_back(const py::object &y, const py::object &grad, const py::object &out,
                        double scale, int threads, const std::string &isa) {
  check_scale(scale);
  const ExactOperands operands(y, "y");
  const int64_t *sizes = stack_of(operands.first(), "y");
  const void *along = operands.data(grad, "grad", operands.first().numel());
  void *to = operands.data(out, "out", operands.first().numel());
  const ExactKernels &kernels = exact_kernels_named(isa);
  in_type_of(operands, [&](auto zero) {
    using Real = decltype(zero);
    softmax_back(kernels, sizes[0] * sizes[1], sizes[2],
                 static_cast<const Real *>(operands.first().data), static_cast<const Real *>(along),
                 scale, static_cast<Real *>(to), threads);
  });
}

// Of either norm; RMSNorm has neither bias nor mean.
void normalize_rows(const py::object &x, const py::object &weight, const py::object &bias,
                    double eps, const py::object &out, const py::object &mean,
                    const py::object &rstd, int threads, const std::string &isa) {
  const ExactOperands operands(x, "x");
  const RowsOf shape(operands.first(), "x");
  const void *scale = operands.data_or_null(weight, "weight", shape.columns);
  const void *shift = operands.data_or_null(bias, "bias", shape.columns);
  void *to = operands.data(out, "out", shape.rows * shape.columns);
  void *means = operands.data_or_null(mean, "mean", shape.rows);
  void *rstds = operands.data(rstd, "rstd", shape.rows);
  const ExactKernels &kernels = exact_kernels_named(isa);
  in_type_of(operands, [&](auto zero) {
    using Real = decltype(zero);
    const Norm<Real> norm = {
        shape.rows,
        shape.columns,
        static_cast<const Real *>(operands.first().data),
        static_cast<const Real *>(scale),
        static_cast<const Real *>(shift),
        eps,
        static_cast<Real *>(to),
        static_cast<Real *>(means),
        static_cast<Real *>(rstds),
    };
    normalize(kernels, norm, threads);
  });
}

void exact_layer_norm(const py::object &x, const py::object &weight, const py::object &bias,
                      double eps, const py::object &out, const py::object &mean,
                      const py::object &rstd, int threads, const std::string &isa) {
  if (mean.is_none()) throw Error(ErrorKind::value, "mean must be a tensor");
  normalize_rows(x, weight, bias, eps, out, mean, rstd, threads, isa);
}

void exact_rms_norm(const py::object &x, const py::object &weight, double eps,
                    const py::object &out, const py::object &rstd, int threads,
                    const std::string &isa) {
  normalize_rows(x, weight, py::none(), eps, out, py::none(), rstd, threads, isa);
}

void normalize_rows_back(const py::object &x, const py::object &weight, const py::object &mean,
                         const py::object &rstd, const py::object &grad, const py::object &dx,
                         const py::object &dweight, const py::object &dbias, int threads,
                         const std::string &isa) {
  const ExactOperands operands(x, "x");
  const RowsOf shape(operands.first(), "x");
  const int64_t count = shape.rows * shape.columns, columns = shape.columns;
  const void *scale = operands.data_or_null(weight, "weight", columns);
  const void *means = operands.data_or_null(mean, "mean", shape.rows);
  const void *rstds = operands.data(rstd, "rstd", shape.rows);
  const void *along = operands.data(grad, "grad", count);
  void *to = operands.data_or_null(dx, "dx", count);
  void *to_weight = operands.data_or_null(dweight, "dweight", columns);
  void *to_bias = operands.data_or_null(dbias, "dbias", columns);
  const ExactKernels &kernels = exact_kernels_named(isa);
  in_type_of(operands, [&](auto zero) {
    using Real = decltype(zero);
    const NormBack<Real> norm = {
        shape.rows,
        columns,
        static_cast<const Real *>(operands.first().data),
        static_cast<const Real *>(scale),
        static_cast<const Real *>(means),
        static_cast<const Real *>(rstds),
        static_cast<const Real *>(along),
        static_cast<Real *>(to),
        static_cast<Real *>(to_weight),
        static_cast<Real *>(to_bias),
    };
    normalize_back(kernels, norm, threads);
  });
}

void exact_layer_norm_back(const py::object &x, const py::object &weight, const py::object &mean,
                           const py::object &rstd, const py::object &grad, const py::object &dx,
                           const py::object &dweight, const py::object &dbias, int threads,
                           const std::string &isa) {
  if (mean.is_none()) throw Error(ErrorKind::value, "mean must be a tensor");
  normalize_rows_back(x, weight, mean, rstd, grad, dx, dweight, dbias, threads, isa);
}

void exact_rms_norm_back(const py::object &x, const py::object &weight, const py::object &rstd,
                         const py::object &grad, const py::object &dx, const py::object &dweight,
                         int threads, const std::string &isa) {
  normalize_rows_back(x, weight, py::none(), rstd, grad, dx, dweight, py::none(), threads, isa);
}

void exact_column_sums(const py::object &x, const py::object &out, int threads,
                       const std::string &isa) {
  const ExactOperands operands(x, "x");
  const RowsOf shape(operands.first(), "x");
  void *to = operands.data(out, "out", shape.columns);
  const ExactKernels &kernels = exact_kernels_named(isa);
  in_type_of(operands, [&](auto zero) {
    using Real = decltype(zero);
    column_sums(kernels, static_cast<const Real *>(operands.first().data), shape.rows,
                shape.columns, static_cast<Real *>(to), threads);
  });
}

void exact_sum(const py::object &x, const py::object &out, int threads, const std::string &isa) {
  const ExactOperands operands(x, "x");
  void *to = operands.data(out, "out", 1);
  const ExactKernels &kernels = exact_kernels_named(isa);
  in_type_of(operands, [&](auto zero) {
    using Real = decltype(zero);
    *static_cast<Real *>(to) =
        static_cast<Real>(sum_of_elements(kernels, static_cast<const Real *>(operands.first().data),
                                          operands.first().numel(), threads));
  });
}

// Logits and what their loss is taken with.
struct LossOperands {
  ExactOperands logits;
  RowsOf shape;
  const int64_t *targets;
  int64_t ignore_index;
  double smoothing;

  LossOperands(const py::object &tensor, const py::object &of_rows, int64_t ignore_index,
               double smoothing)
      : logits(tensor, "logits"), shape(logits.first(), "logits"),
        targets(read_int64(of_rows, "targets", shape.rows)), ignore_index(ignore_index),
        smoothing(smoothing) {
    if (!(smoothing >= 0 && smoothing <= 1))
      throw Error(ErrorKind::value, "label_smoothing must lie in [0, 1]");
  }
  template <class Real> Logits<Real> as() const {
    return {shape.rows, shape.columns, static_cast<const Real *>(logits.first().data),
            targets,    ignore_index,  smoothing};
  }
};

void exact_cross_entropy(const py::object &logits, const py::object &targets, int64_t ignore_index,
                         double smoothing, const py::object &losses, const py::object &lse,
                         int threads, const std::string &isa) {
  const LossOperands loss(logits, targets, ignore_index, smoothing);
  void *to = loss.logits.data(losses, "losses", loss.shape.rows);
  void *logs = loss.logits.data(lse, "lse", loss.shape.rows);
  const ExactKernels &kernels = exact_kernels_named(isa);
  in_type_of(loss.logits, [&](auto zero) {
    using Real = decltype(zero);
    cross_entropy(kernels, loss.as<Real>(), static_cast<Real *>(to), static_cast<Real *>(logs),
                  threads);
  });
}

void exact_cross_entropy_back(const py::object &logits, const py::object &lse,
                              const py::object &targets, int64_t ignore_index, double smoothing,
                              const py::object &row_grad, const py::object &out, int threads,
                              const std::string &isa) {
  const LossOperands loss(logits, targets, ignore_index, smoothing);
  const void *logs = loss.logits.data(lse, "lse", loss.shape.rows);
  const void *along = loss.logits.data(row_grad, "row_grad", loss.shape.rows);
  void *to = loss.logits.data(out, "out", loss.shape.rows * loss.shape.columns);
  const ExactKernels &kernels = exact_kernels_named(isa);
  in_type_of(loss.logits, [&](auto zero) {
    using Real = decltype(zero);
    cross_entropy_back(kernels, loss.as<Real>(), static_cast<const Real *>(logs),
                       static_cast<const Real *>(along), static_cast<Real *>(to), threads);
  });
}

void exact_embedding_back(const py::object &indices, const py::object &grad, int64_t padding_index,
                          const py::object &out, int threads, const std::string &isa) {
  const ExactOperands operands(grad, "grad");
  const RowsOf shape(operands.first(), "grad");
  const int64_t *at = read_int64(indices, "indices", shape.rows);
  const ExactOperands table(out, "out");
  const RowsOf to(table.first(), "out");
  if (table.f64() != operands.f64() || to.columns != shape.columns)
    throw Error(ErrorKind::value, "out must have the dtype and the columns of grad");
  const ExactKernels &kernels = exact_kernels_named(isa);
  in_type_of(operands, [&](auto zero) {
    using Real = decltype(zero);
    embedding_back(kernels, at, shape.rows, static_cast<const Real *>(operands.first().data),
                   shape.columns, padding_index, to.rows, static_cast<Real *>(table.first().data),
                   threads);
  });
}

} // namespace

void register_exact_rows(py::module_ &m) {
  m.def("exact_softmax", &exact_softmax, py::arg("x"), py::arg("out"), py::arg("scale"),
        py::arg("causal"), py::arg("threads"), py::arg("isa") = "");
  m.def("exact_softmax_backward", &exact_softmax_back, py::arg("y"), py::arg("grad"),
        py::arg("out"), py::arg("scale"), py::arg("threads"), py::arg("isa") = "");
  m.def("exact_layer_norm", &exact_layer_norm, py::arg("x"), py::arg("weight"), py::arg("bias"),
        py::arg("eps"), py::arg("out"), py::arg("mean"), py::arg("rstd"), py::arg("threads"),
        py::arg("isa") = "");
  m.def("exact_layer_norm_backward", &exact_layer_norm_back, py::arg("x"), py::arg("weight"),
        py::arg("mean"), py::arg("rstd"), py::arg("grad"), py::arg("dx"), py::arg("dweight"),
        py::arg("dbias"), py::arg("threads"), py::arg("isa") = "");
  m.def("exact_rms_norm", &exact_rms_norm, py::arg("x"), py::arg("weight"), py::arg("eps"),
        py::arg("out"), py::arg("rstd"), py::arg("threads"), py::arg("isa") = "");
  m.def("exact_rms_norm_backward", &exact_rms_norm_back, py::arg("x"), py::arg("weight"),
        py::arg("rstd"), py::arg("grad"), py::arg("dx"), py::arg("dweight"), py::arg("threads"),
        py::arg("isa") = "");
  m.def("exact_column_sums", &exact_column_sums, py::arg("x"), py::arg("out"), py::arg("threads"),
        py::arg("isa") = "");
  m.def("exact_sum", &exact_sum, py::arg("x"), py::arg("out"), py::arg("threads"),
        py::arg("isa") = "");
  m.def("exact_cross_entropy", &exact_cross_entropy, py::arg("logits"), py::arg("targets"),
        py::arg("ignore_index"), py::arg("label_smoothing"), py::arg("losses"), py::arg("lse"),
        py::arg("threads"), py::arg("isa") = "");
  m.def("exact_cross_entropy_backward", &exact_cross_entropy_back, py::arg("logits"),
        py::arg("lse"), py::arg("targets"), py::arg("ignore_index"), py::arg("label_smoothing"),
        py::arg("row_grad"), py::arg("out"), py::arg("threads"), py::arg("isa") = "");
  m.def("exact_embedding_backward", &exact_embedding_back, py::arg("indices"), py::arg("grad"),
        py::arg("padding_index"), py::arg("out"), py::arg("threads"), py::arg("isa") = "");
}

} // namespace cosmic
