#include "exact/rows.h"

#include <string>

#include "core/error.h"
#include "exact/parallel.h"

namespace cosmic {

template <class Real> void softmax(const ExactKernels &kernels, const SoftmaxShape &shape,
                                   const Real *x, double scale, Real *out, int threads) {
  const auto run = exact_kernels_of<Real>(kernels).softmax;
  const int64_t columns = shape.columns, hidden = shape.causal ? shape.rows - 1 : 0;
  for_each_row(shape.matrices * shape.rows, columns, threads, [&](int64_t row) {
    const int64_t later = shape.causal ? row % shape.rows : 0; // than the first row
    const int64_t seen = std::max<int64_t>(columns - hidden + later, 0);
    run(x + row * columns, std::min(seen, columns), columns, scale, out + row * columns);
  });
}

template <class Real> void softmax_back(const ExactKernels &kernels, int64_t rows, int64_t columns,
                                        const Real *y, const Real *grad, double scale, Real *out,
                                        int threads) {
  const auto run = exact_kernels_of<Real>(kernels).softmax_back;
  for_each_row(rows, columns, threads, [=](int64_t row) {
    const int64_t at = row * columns;
    run(y + at, grad + at, columns, scale, out + at);
  });
}

namespace {

template <class Real> void check_targets(const Logits<Real> &logits) {
  for (int64_t n = 0; n < logits.rows; ++n) {
    const int64_t target = logits.targets[n];
    if (target != logits.ignore_index && (target < 0 || target >= logits.classes))
      throw Error(ErrorKind::index, "target " + std::to_string(target) + " of row " +
                                        std::to_string(n) + " is none of " +
                                        std::to_string(logits.classes) +
                                        " classes, and not ignore_index");
  }
}

template <class Real> LogitRow<Real> row_of(const Logits<Real> &logits, int64_t row) {
  return {logits.x + row * logits.classes, logits.classes, logits.targets[row], logits.smoothing};
}

} // namespace

template <class Real> void cross_entropy(const ExactKernels &kernels, const Logits<Real> &logits,
                                         Real *losses, Real *lse, int threads) {
  check_targets(logits);
  const auto run = exact_kernels_of<Real>(kernels).cross_entropy;
  for_each_row(logits.rows, logits.classes, threads, [&](int64_t row) {
    losses[row] = lse[row] = 0;
    if (logits.targets[row] != logits.ignore_index)
      run(row_of(logits, row), losses + row, lse + row);
  });
}

template <class Real> void cross_entropy_back(const ExactKernels &kernels,
                                              const Logits<Real> &logits, const Real *lse,
                                              const Real *row_grad, Real *out, int threads) {
  check_targets(logits);
  const auto run = exact_kernels_of<Real>(kernels).cross_entropy_back;
  for_each_row(logits.rows, logits.classes, threads, [&](int64_t row) {
    Real *const to = out + row * logits.classes;
    if (logits.targets[row] == logits.ignore_index)
      std::fill_n(to, logits.classes, Real(0));
    else
      run(row_of(logits, row), lse[row], row_grad[row], to);
  });
}

#define COSMIC_FOR(Real)                                                                           \
  template void softmax(const ExactKernels &, const SoftmaxShape &, const Real *, double, Real *,  \
                        int);                                                                      \
  template void softmax_back(const ExactKernels &, int64_t, int64_t, const Real *, const Real *,   \
                             double, Real *, int);                                                 \
  template void cross_entropy(const ExactKernels &, const Logits<Real> &, Real *, Real *, int);    \
  template void cross_entropy_back(const ExactKernels &, const Logits<Real> &, const Real *,       \
                                   const Real *, Real *, int);
COSMIC_FOR(float)
COSMIC_FOR(double)
#undef COSMIC_FOR

} // namespace cosmic
