// Compiled once per ISA, with COSMIC_TARGET set to its name: what it has for products of matrices.
#include "matmul/pack_kernel.h"
#include "matmul/product_kernels.h"
#include "matmul/tile_kernel.h"

namespace cosmic::COSMIC_TARGET {

extern const ProductKernels product_kernels;
const ProductKernels product_kernels = {
    TileF32::kernel(),        TileF64::kernel(),          TileWidened::kernel(),
    pack_panel<float, float>, pack_panel<double, double>, pack_panel<float, double>,
};

} // namespace cosmic::COSMIC_TARGET
