// Which way to average a second moment that keeps one mean a row or one a column.
#pragma once

#include "plan/layout.h"
#include "plan/row.h"

namespace cosmic {

// Whether a mean a column keeps more of g^2 than a mean a row: SlimAdam (arXiv 2503.01843) averages
// along the direction of the higher signal-to-noise ratio, mean^2 / variance, here of the means of
// g^2 over the other direction, which a single gradient's noise moves less than g^2 itself.
// `gradient` is walked as its parameter is; elements that are not finite are left out.
bool keeps_columns(const Operand &gradient, MatrixShape shape);

} // namespace cosmic
