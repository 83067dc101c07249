// A part of the core's test of itself (plan/self_test.h): products against plain sums.
#pragma once

namespace cosmic {

struct Kernels;

// Multiplies and orthogonalizes matrices with 1 and with 2 threads. Throws Error where bits are not
// those of a plain loop, of the kernels of ISA scalar for an orthogonalization.
void check_products(const Kernels &kernels);

} // namespace cosmic
