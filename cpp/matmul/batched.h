// Products of many pairs of matrices, whose bits depend on the numbers alone: neither on the ISA
// nor on threads nor on how many pairs there are.
#pragma once

#include <cstdint>
#include <string>

#include "matmul/product_kernels.h"
#include "matmul/view.h"

namespace cosmic {

// out = A B + add, for each of `batch` pairs: A is rows x depth, B is depth x columns. Rows of
// `out` are runs of memory.
template <class T> struct BatchedProduct {
  int64_t batch = 0, rows = 0, columns = 0, depth = 0;
  MatrixViewOf<T> a, b;           // of the first pair
  int64_t a_step = 0, b_step = 0; // from one matrix to the next, in elements
  T *out = nullptr;
  int64_t out_step = 0, out_stride = 0;
  const T *add = nullptr; // of each column; null: none
  int64_t add_step = 0;
};

// How an element is summed.
enum class Accumulate : uint8_t {
  fp32, // of floats: over k in order, each product and each sum rounded to float
  fp64, // over k in order in double, `add` last; of floats rounded to float once
  exact // the sum of all products and `add` as if it were exact, rounded to nearest once
};

// "fp32", "fp64" or "exact"; throws Error for another name.
Accumulate accumulate_named(const std::string &name);

// Throws Error where doubles are to be summed in float.
void multiply_batched(const ProductKernels &kernels, const BatchedProduct<float> &product,
                      Accumulate accumulate, int threads);
void multiply_batched(const ProductKernels &kernels, const BatchedProduct<double> &product,
                      Accumulate accumulate, int threads);

} // namespace cosmic
