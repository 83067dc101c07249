// From hyper-parameters and a tensor's state to the numbers of one step.
#pragma once

#include "plan/row.h"

namespace cosmic {

// The root mean square of Adam's update when gradients are uncorrelated in time, after warm-up:
// sqrt((1 - beta1) / (1 + beta1)). A sign has 1; times this, one learning rate fits both.
double sign_scale(double beta1);

// The random counter of a tensor at a step.
uint32_t random_key(uint64_t seed, int64_t step, uint32_t tensor);

// The step that `row` is about to take, its counter not yet advanced.
// `steps` counts the optimizer's steps before this one: the random counter of a row without its
// own.
Coefficients coefficients_for(const Row &row, const Group &group, uint64_t seed, int64_t steps);

// Whether the coefficients of two rows can differ only in their random bits: the usual case, for
// which the powers of the betas need not be taken again.
bool shares_coefficients(const Row &a, const Row &b);

// Another row's coefficients with this row's random bits.
Coefficients with_random_key(const Coefficients &of, const Row &row, uint64_t seed, int64_t steps);

// The averages of rule scalar_sign for a tensor whose second moment is given up: `row` is the one
// that held it, `mean_root` the mean of the square roots of its elements.
void start_magnitude(double *state, double mean_root, const Row &row, const Group &group);

// The factor that the row's gate has for this step.
double gate_factor(const Row &row, const Group &group);

// Advance counters and fold the statistics of a step with these coefficients into gate, scalars,
// signal and the codec's numbers.
void finish_step(Row &row, const Group &group, const Coefficients &c);

} // namespace cosmic
