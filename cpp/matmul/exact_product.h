// Products of matrices as if sums had no error: each element is the number nearest to it.
#pragma once

#include "matmul/batched.h"

namespace cosmic {

void multiply_exactly(const BatchedProduct<float> &product, int threads);
void multiply_exactly(const BatchedProduct<double> &product, int threads);

} // namespace cosmic
