// Compiled once per ISA, with COSMIC_TARGET set to its name: the function table of rows and
// elements.
#include "exact/exact_kernels.h"

#include "exact/activations.h"
#include "exact/counter_random.h"
#include "exact/cross_entropy.h"
#include "exact/norms.h"
#include "exact/rotary.h"
#include "exact/softmax.h"
#include "exact/sums.h"

namespace cosmic::COSMIC_TARGET {

namespace {

template <class Real> constexpr ExactKernelsOf<Real> kExactKernelsOf = {
#define COSMIC_MAP(name, Map) map_run<Map, Real>,
    {COSMIC_MAPS(COSMIC_MAP)},
#undef COSMIC_MAP
#define COSMIC_MAP(name, Map) map_back_run<Map, Real>,
    {COSMIC_MAPS(COSMIC_MAP)},
#undef COSMIC_MAP
    softmax_row<Real>,         softmax_back_row<Real>,
    layer_norm_row<Real>,      rms_norm_row<Real>,
    norm_back_row<Real>,       column_sums_run<Real>,
    join_sums<Real>,           sum_run<Real>,
    cross_entropy_row<Real>,   cross_entropy_back_row<Real>,
    sum_of_rows<Real>,         dropout_run<Real>,
    uniform_run<Real>,         normal_run<Real>,
    rotary_row<Real>,
};

} // namespace

extern const ExactKernels exact_kernels;
const ExactKernels exact_kernels = {COSMIC_ISA_NAME, kExactKernelsOf<float>,
                                    kExactKernelsOf<double>, inverse_frequencies};

} // namespace cosmic::COSMIC_TARGET
