// Softmax, norms, cross-entropy, sums and the embedding's gradient, over threads. Matrices are runs
// of memory, row after row; Real is float or double.
#pragma once

#include "exact/exact_kernels.h"

namespace cosmic {

// softmax(scale * x), scale > 0, over columns. Causal: row r of a matrix sees the columns up to
// r + columns - rows.
struct SoftmaxShape {
  int64_t matrices, rows, columns;
  bool causal;
};
template <class Real> void softmax(const ExactKernels &kernels, const SoftmaxShape &shape,
                                   const Real *x, double scale, Real *out, int threads);
template <class Real> void softmax_back(const ExactKernels &kernels, int64_t rows, int64_t columns,
                                        const Real *y, const Real *grad, double scale, Real *out,
                                        int threads);

// Of all rows; `mean` is null of RMSNorm. What may be null: weight, bias; of gradients each of dx,
// dweight and dbias.
template <class Real> struct Norm {
  int64_t rows, columns;
  const Real *x, *weight, *bias;
  double eps;
  Real *out, *mean, *rstd;
};
template <class Real>
void normalize(const ExactKernels &kernels, const Norm<Real> &norm, int threads);

template <class Real> struct NormBack {
  int64_t rows, columns;
  const Real *x, *weight, *mean, *rstd, *grad;
  Real *dx, *dweight, *dbias;
};
template <class Real>
void normalize_back(const ExactKernels &kernels, const NormBack<Real> &norm, int threads);

template <class Real> void column_sums(const ExactKernels &kernels, const Real *x, int64_t rows,
                                       int64_t columns, Real *out, int threads);
template <class Real>
double sum_of_elements(const ExactKernels &kernels, const Real *x, int64_t count, int threads);

// Targets other than `ignore_index` are classes: a wrong one is an Error.
template <class Real> struct Logits {
  int64_t rows, classes;
  const Real *x;
  const int64_t *targets;
  int64_t ignore_index;
  double smoothing;
};
template <class Real> void cross_entropy(const ExactKernels &kernels, const Logits<Real> &logits,
                                         Real *losses, Real *lse, int threads);
template <class Real> void cross_entropy_back(const ExactKernels &kernels,
                                              const Logits<Real> &logits, const Real *lse,
                                              const Real *row_grad, Real *out, int threads);

// out [vocabulary, columns]: of each index the sum of its rows of grad, in order of position.
// `padding` is an index that gets none, or -1. Throws Error for an index outside of the vocabulary.
template <class Real> void embedding_back(const ExactKernels &kernels, const int64_t *indices,
                                          int64_t count, const Real *grad, int64_t columns,
                                          int64_t padding, int64_t vocabulary, Real *out,
                                          int threads);

} // namespace cosmic
