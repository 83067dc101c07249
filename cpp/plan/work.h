// One work item: some blocks of one tensor, staged through L1 where the tensor's memory is not
// what the kernels read directly.
#pragma once

#include "kernels/kernels.h"
#include "plan/row.h"

namespace cosmic {

// Steps blocks [first, last) of the row's parameter. `matrix` is of the item where the row's second
// moment is kept by rows and columns, else null.
void step_blocks(const Row &row, const Kernels &kernels, const Coefficients &coefficients,
                 int64_t first, int64_t last, LaneSums &sums, MatrixSums *matrix);

// As `step_blocks`, but what would become of a parameter goes to `memory`, which holds the whole
// tensor in the arithmetic type: of one of zeros, where that is what it held before. A rule of
// whole matrices leaves there what is to be orthogonalized.
void step_aside(const Row &row, void *memory, const Kernels &kernels,
                const Coefficients &coefficients, int64_t first, int64_t last, LaneSums &sums,
                MatrixSums *matrix);
// Adds it to the decayed parameter. Returns the sum of the new one's squares.
double move_blocks(const Row &row, const void *memory, const Kernels &kernels,
                   const Coefficients &coefficients, int64_t first, int64_t last);

// Moves blocks [first, last) of the row's parameter against the direction that `memory` holds,
// padded with zeros to whole blocks.
void descend_blocks(const Row &row, const float *memory, const Kernels &kernels,
                    const Coefficients &coefficients, int64_t first, int64_t last, LaneSums &sums);

// Writes blocks [first, last) of the row's copy, of a parameter that does not move at this step.
void copy_blocks(const Row &row, const Kernels &kernels, int64_t first, int64_t last);

// The sums of the squared direction and parameter over blocks [first, last); changes nothing.
void measure_direction(const Row &row, const float *memory, const Kernels &kernels, int64_t first,
                       int64_t last, LaneSums &sums);

// What the pass that the row is measured by adds up over blocks [first, last), of what the moments
// are about to become, and its looks at them; changes nothing else.
void measure_blocks(Row &row, const Kernels &kernels, const Coefficients &coefficients,
                    int64_t first, int64_t last, LaneSums &sums, MatrixSums *matrix);

// Adds up over blocks [first, last) what the row's second moment by rows and columns is about to
// become; changes nothing else.
void add_up_second(const Row &row, const Kernels &kernels, const Coefficients &coefficients,
                   int64_t first, int64_t last, MatrixSums &matrix);

// Looks at blocks [first, last) of the row's gradient and changes nothing.
void inspect_blocks(const Row &row, const Kernels &kernels, int64_t first, int64_t last,
                    LaneSums &sums);

} // namespace cosmic
