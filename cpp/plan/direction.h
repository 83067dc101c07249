// How much the squares of a matrix vary from row to row and from column to column.
#pragma once

#include "plan/layout.h"
#include "plan/row.h"

namespace cosmic {

// Squared coefficients of variation of the sums of squares of rows, and of columns. Walked as the
// parameter is; elements that are not finite are left out.
struct Variation {
  double of_rows, of_columns;
};
Variation variation_of(const Operand &matrix, MatrixShape shape);

// Whether a mean a column keeps more of g^2 than a mean a row: SlimAdam (arXiv 2503.01843) averages
// along the direction of the higher signal-to-noise ratio, mean^2 / variance, here of the means of
// g^2 over the other direction, which a single gradient's noise moves less than g^2 itself.
bool keeps_columns(const Operand &gradient, MatrixShape shape);

} // namespace cosmic
