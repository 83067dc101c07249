// What an ISA has for products of matrices: tiles, and copies of operands in the order in which
// tiles read them. Plain data.
#pragma once

#include <cstdint>

#include "matmul/tile.h"
#include "matmul/view.h"

namespace cosmic {

// Columns [0, width) of some of a matrix's rows, `panel` of them beside one another for each row;
// what is missing of a panel is zero. Of A give the transposed view.
template <class From, class To> using PackPanel = void (*)(const MatrixViewOf<From> &from,
                                                           int64_t rows, int64_t width, int panel,
                                                           To *to);

struct ProductKernels {
  TileKernelOf<float, float> f32;
  TileKernelOf<double, double> f64;
  // Of floats, summed in double and rounded to float once. The product of two floats is a double,
  // so that a fused multiply-add, where there is one, has the bits of a product and a sum.
  TileKernelOf<double, float> widened;
  PackPanel<float, float> pack_f32;
  PackPanel<double, double> pack_f64;
  PackPanel<float, double> pack_widened;
};

} // namespace cosmic
