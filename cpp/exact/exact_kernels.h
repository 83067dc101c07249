// The function table through which the drivers of rows and elements reach the kernels of one ISA.
// What is summed is summed in double, in an order that depends on the numbers of rows and columns
// alone.
#pragma once

#include <cstdint>

#include "core/types.h"

namespace cosmic {

// name, what computes it (activations.h)
#define COSMIC_MAPS(X)                                                                             \
  X(exp, ExpMap)                                                                                   \
  X(log, LogMap)                                                                                   \
  X(tanh, TanhMap)                                                                                 \
  X(erf, ErfMap)                                                                                   \
  X(sigmoid, SigmoidMap)                                                                           \
  X(gelu, GeluMap)                                                                                 \
  X(gelu_tanh, GeluTanhMap)                                                                        \
  X(silu, SiluMap)

enum class MapAt : int {
#define COSMIC_MAP(name, Map) name,
  COSMIC_MAPS(COSMIC_MAP)
#undef COSMIC_MAP
};
#define COSMIC_COUNT(name, Map) +1
constexpr int kMaps = COSMIC_MAPS(COSMIC_COUNT);
#undef COSMIC_COUNT

// Of LayerNorm, or of RMSNorm, which has neither `mean` nor `bias`. `weight` and `bias` may be
// null.
template <class Real> struct NormRow {
  const Real *x;
  int64_t columns;
  const Real *weight, *bias;
  double eps;
  Real *out, *mean, *rstd; // mean, rstd: a number each
};
template <class Real> struct NormBackRow {
  const Real *x, *grad;
  int64_t columns;
  const Real *weight;
  const Real *mean; // null of RMSNorm
  const Real *rstd;
  Real *dx;
};

// Consecutive rows whose columns are summed: of grad into `plain`, of grad times the normalized x
// into `normalized`. LayerNorm asks for both, RMSNorm, which has no mean, for the second, whoever
// has no x for the first; what is not asked for is null.
template <class Real> struct ColumnRun {
  const Real *grad, *x, *mean, *rstd;
  int64_t rows, columns;
  double *plain, *normalized;
};

// Numbers of a row of logits, `smoothing` and `target` of its loss.
template <class Real> struct LogitRow {
  const Real *x;
  int64_t classes, target;
  double smoothing;
};

// Elements of a tensor from `first` on, a multiple of 16, that take numbers of a counter.
struct CounterRun {
  uint64_t key;
  int64_t first, count; // within one multiple of 2^32
};

template <class Real> struct ExactKernelsOf {
  void (*map[kMaps])(const Real *x, int64_t count, Real *out);
  void (*map_back[kMaps])(const Real *x, const Real *grad, int64_t count, Real *out);
  // of the first `seen` columns; the others become 0
  void (*softmax)(const Real *x, int64_t seen, int64_t columns, double scale, Real *out);
  void (*softmax_back)(const Real *y, const Real *grad, int64_t columns, double scale, Real *out);
  void (*layer_norm)(const NormRow<Real> &row);
  void (*rms_norm)(const NormRow<Real> &row);
  void (*norm_back)(const NormBackRow<Real> &row);
  void (*column_sums)(const ColumnRun<Real> &run);
  // out[k] = the sum of `count` partial sums, `stride` apart
  void (*join_sums)(const double *partial, int64_t count, int64_t stride, int64_t columns,
                    Real *out);
  double (*sum)(const Real *x, int64_t count);
  void (*cross_entropy)(const LogitRow<Real> &row, Real *loss, Real *lse);
  void (*cross_entropy_back)(const LogitRow<Real> &row, Real lse, Real grad, Real *out);
  // out = the sum of rows rows[0], rows[1], ... of a matrix, in this order
  void (*sum_of_rows)(const Real *matrix, int64_t stride, const int64_t *rows, int64_t count,
                      int64_t columns, Real *out);
  // an element is dropped where its random number, from -2^31 on, is below `threshold`
  void (*dropout)(const CounterRun &run, int32_t threshold, double scale, const Real *x, Real *out);
  void (*uniform)(const CounterRun &run, double low, double high, Real *out);
  void (*normal)(const CounterRun &run, double mean, double std, Real *out);
  // a row of cos and one of sin, of 2 * half columns
  void (*rotary)(double position, const double *frequencies, int64_t half, double scaling,
                 Real *cos, Real *sin);
};

struct ExactKernels {
  const char *isa;
  ExactKernelsOf<float> f32;
  ExactKernelsOf<double> f64;
  // base^(-k / count) for k < count
  void (*inverse_frequencies)(double base, int64_t count, double *out);
};

template <class Real> const ExactKernelsOf<Real> &exact_kernels_of(const ExactKernels &kernels) {
  if constexpr (sizeof(Real) == sizeof(float))
    return kernels.f32;
  else
    return kernels.f64;
}

} // namespace cosmic
