// One work item: some blocks of one tensor, staged through L1 where the tensor's memory is not
// what the kernels read directly.
#pragma once

#include "kernels/kernels.h"
#include "plan/row.h"

namespace cosmic {

// Steps blocks [first, last) of the row's parameter.
void step_blocks(const Row &row, const Kernels &kernels, const Coefficients &coefficients,
                 int64_t first, int64_t last, LaneSums &sums);

// Looks at blocks [first, last) of the row's gradient and changes nothing.
void inspect_blocks(const Row &row, const Kernels &kernels, int64_t first, int64_t last,
                    LaneSums &sums);

} // namespace cosmic
