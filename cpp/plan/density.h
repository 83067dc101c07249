// How much of a gradient is not zero, among the rows and columns that have anything: what tells a
// mask, which rows and columns do not describe, from rows that are silent.
#pragma once

#include "core/strided.h"
#include "plan/layout.h"
#include "plan/row.h"

namespace cosmic {

// Elements other than zero over those of all rows and columns that have one; 1 where there is none.
// float32, bfloat16 or float16.
double density_of(const Operand &gradient, MatrixShape shape);

} // namespace cosmic
