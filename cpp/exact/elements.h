// Functions of elements, dropout, fills and rotary tables, over threads. Tensors are runs of
// memory; Real is float or double.
#pragma once

#include "exact/exact_kernels.h"

namespace cosmic {

template <class Real> void map_elements(const ExactKernels &kernels, MapAt op, const Real *x,
                                        int64_t count, Real *out, int threads);
template <class Real> void map_elements_back(const ExactKernels &kernels, MapAt op, const Real *x,
                                             const Real *grad, int64_t count, Real *out,
                                             int threads);

// p is in [0, 1). The mask depends on the key and an element's index alone.
template <class Real> void drop_elements(const ExactKernels &kernels, const Real *x, int64_t count,
                                         double p, uint64_t key, Real *out, int threads);

template <class Real> void fill_uniform(const ExactKernels &kernels, double low, double high,
                                        uint64_t key, int64_t count, Real *out, int threads);
template <class Real> void fill_normal(const ExactKernels &kernels, double mean, double std,
                                       uint64_t key, int64_t count, Real *out, int threads);

// base^(-k / count) for k < count
void fill_inverse_frequencies(const ExactKernels &kernels, double base, int64_t count, double *out);

// scaling * cos and sin of position * frequency; cos and sin are [count, 2 * half], either half the
// same. Throws Error for angles beyond 2^24.
template <class Real> void fill_rotary(const ExactKernels &kernels, const int64_t *positions,
                                       int64_t count, const double *frequencies, int64_t half,
                                       double scaling, Real *cos, Real *sin, int threads);

} // namespace cosmic
