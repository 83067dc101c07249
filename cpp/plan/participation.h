// How a gradient is spread over a matrix: what tells an embedding or a head from a hidden matrix
// without knowing its name.
#pragma once

#include "plan/layout.h"
#include "plan/row.h"

namespace cosmic {

// With x the sums of |g| over rows (or over columns), the share of them that effectively carries
// the gradient, (sum x)^2 / (n sum x^2): 1 where all are alike, 1/n where one has everything.
// Elements that are not below 1e30 count as zero; 0 where there is nothing to see.
struct Participation {
  double rows = 0, columns = 0;
};

Participation participation_of(const Operand &gradient, MatrixShape shape);

} // namespace cosmic
