// Moments out of a tensor's state as float32, and into it: what carries them to another rung.
#pragma once

#include "plan/row.h"

namespace cosmic {

// Tensors of the parameter's sizes, walked as the parameter is; `slow` has no elements where the
// rung keeps no slow average.
struct Moments {
  Operand m, slow, v;
};

// Decodes the state of `row`, one of float arithmetic that holds a second moment, as the next step
// would read it. A rung without a first moment leaves `m` alone.
void decode_moments(const Row &row, const Group &group, const Moments &to);

// Encodes moments as the state of `row`, whose step counter says how many steps made them. Lossy
// codecs round with the random bits of that step.
void encode_moments(Row &row, const Group &group, uint64_t seed, const Moments &from);

// The row's parameter with all of its bits, as float32; `to` is walked as the parameter is.
void decode_param(const Row &row, const Operand &to);

// The mean of sqrt(v) over those elements of `row` where it is finite; 0 if there are none. The
// elements are added up in their order, so that its bits depend on nothing else.
double mean_root(const Row &row, const Group &group);

} // namespace cosmic
