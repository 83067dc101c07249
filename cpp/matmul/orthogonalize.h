// The nearest matrix with orthonormal rows or columns, by Newton-Schulz iterations (rule Muon).
//
// With m the shorter side of X, everything but the ends happens on m x m matrices. For a wide X
//
//     G = X X^T / max(|X|, eps)^2,  Q = I
//     each iteration:  P = a I + b G + c G^2,   Q <- P Q,   G <- P G P
//     X <- (scale / max(|X|, eps)) Q X
//
// which is the iteration X <- a X + b (X X^T) X + c (X X^T)^2 X, as its matrices are polynomials of
// G: symmetric, and they commute. A tall X has X^T X and X Q in their places. Many iterations are
// done in stretches, of which each begins with the X that the one before it left.
#pragma once

#include <cstdint>

#include "matmul/newton_schulz.h"

namespace cosmic {

struct Kernels;

struct SubMatrix { // rows of memory, `stride` floats apart
  float *data;
  int64_t rows, columns, stride;
};

// Floats of scratch beside the matrix itself.
int64_t orthogonalize_scratch(int64_t rows, int64_t columns, int threads);

// matrix <- scale orth(matrix). `norm`: a positive number near the size of the matrix, such as the
// Frobenius norm of a larger one that it is part of: everything is first multiplied by the power of
// two nearest 1 / norm, so that squares neither overflow nor vanish. `eps`: the least norm that the
// matrix is divided by. Zero stays zero; what is not finite makes every element a NaN.
void orthogonalize(const Kernels &kernels, const SubMatrix &matrix, double norm, double eps,
                   double scale, const NewtonSchulz &steps, float *scratch, int threads);

} // namespace cosmic
