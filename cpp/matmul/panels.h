// Copies of matrices in the order in which a tile reads them, and mirroring.
#pragma once

#include <cstdint>

#include "matmul/view.h"

namespace cosmic {

// Columns [first, first + width) of some of a matrix's rows, `panel` of them beside one another for
// each row, times `factor`; what is missing of a panel is zero. Of A give the transposed view.
void pack_panel(const MatrixView &from, int64_t rows, int64_t width, int panel, float factor,
                float *to);

// Rows [first, last) of a square matrix right of its diagonal from what lies below the diagonal in
// columns [first, last); of these rows and columns, everything is multiplied by `factor` first.
void mirror_rows(float *matrix, int64_t stride, int64_t size, int64_t first, int64_t last,
                 float factor);

} // namespace cosmic
