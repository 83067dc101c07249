// Products of matrices of floats, whose bits depend on the numbers alone (matmul/tile.h): neither
// on the ISA nor on threads.
#pragma once

#include <cstdint>

#include "matmul/panels.h"
#include "matmul/tile.h"

namespace cosmic {

// C = alpha (f A) (g B) + beta D + gamma I, where f and g are powers of two: A is rows x depth, B
// is depth x columns. Rows of C and D are runs of memory.
struct Product {
  int64_t rows = 0, columns = 0, depth = 0;
  MatrixView a, b;
  float *c = nullptr;
  int64_t c_stride = 0;
  float a_factor = 1, b_factor = 1, alpha = 1, beta = 0, gamma = 0;
  const float *d = nullptr; // null: none; not C
  int64_t d_stride = 0;
};

// Floats of scratch for the first two products below, with `size` rows of the one or columns of the
// other, and for the third; on any ISA.
int64_t product_scratch(int64_t size, int64_t depth, int threads);
int64_t symmetric_scratch(int64_t size, int64_t depth);

// By blocks of columns, of which each thread packs its own: C may be B.
void multiply_by_columns(const TileKernel &kernel, const Product &product, float *scratch,
                         int threads);
// By blocks of rows: C may be A.
void multiply_by_rows(const TileKernel &kernel, const Product &product, float *scratch,
                      int threads);
// A symmetric C: what lies on and below the diagonal is computed. C may be A or B where these are
// packed as a whole: where depth is at most rows. Without `mirrored` what lies above the diagonal
// is left undefined.
void multiply_symmetric(const TileKernel &kernel, const Product &product, bool mirrored,
                        float *scratch, int threads);
// What lies on and below the diagonal times `factor`, and above it the same.
void scale_and_mirror(float *matrix, int64_t stride, int64_t size, float factor, int threads);

} // namespace cosmic
