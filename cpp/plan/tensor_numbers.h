// First moments whose codec has numbers of the whole tensor: `ustate` the step between its codes,
// `costate` the share of the gradient and the percentiles of its blocks.
#pragma once

#include "plan/row.h"

namespace cosmic {

// What the numbers of `row`, kept in its state, are for this step; `costate` knows its share of
// this step's gradient only once it has been measured.
void set_tensor_numbers(Coefficients &c, const Row &row, const Group &group);
void set_measured_numbers(Coefficients &c, const Row &row);

// After a step with these coefficients: the numbers are kept, and blocks are sorted by their
// ratios.
void finish_tensor_numbers(Row &row, const Group &group, const Coefficients &c);

// The step between `ustate`'s codes from a sum of squares; the last one if that is not finite.
float code_step(double square_sum, int64_t numel, double factor, float last);

} // namespace cosmic
