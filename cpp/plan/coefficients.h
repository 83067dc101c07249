// From hyper-parameters and a tensor's state to the numbers of one step.
#pragma once

#include "plan/row.h"

namespace cosmic {

// The random counter of a tensor at a step.
uint32_t random_key(uint64_t seed, int64_t step, uint32_t tensor);

// The step that `row` is about to take, its counter not yet advanced; `gate` is the factor on its
// update, as far as it is known.
// `steps` counts the optimizer's steps before this one: the random counter of a row without its
// own.
Coefficients coefficients_for(const Row &row, const Group &group, double gate, uint64_t seed,
                              int64_t steps);

// Whether the coefficients of two rows can differ only in their random bits: the usual case, for
// which the powers of the betas need not be taken again.
bool shares_coefficients(const Row &a, const Row &b);

// Another row's coefficients with this row's random bits.
Coefficients with_random_key(const Coefficients &of, const Row &row, uint64_t seed, int64_t steps);

// What the codec of the first moment is told of the step.
CodecStep codec_step(const Row &row, const Group &group);

// The numbers of `rule` for a tensor whose second moment is given up: `row` is the one that held
// it, `mean_root` the mean of the square roots of its elements.
std::vector<double> started_numbers(const RulePart &rule, double mean_root, const Row &row,
                                    const Group &group);

// Advance counters and fold the statistics of a step with these coefficients into what the rule and
// the codec keep, and the signal.
void finish_step(Row &row, const Group &group, const Coefficients &c);

} // namespace cosmic
