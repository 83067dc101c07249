// Moments out of a tensor's state as float32, and into it: what carries them to another rung.
#pragma once

#include "plan/row.h"

namespace cosmic {

// Tensors of the parameter's sizes, walked as the parameter is; `slow` has no elements where the
// rung keeps no slow average.
struct Moments {
  Operand m, slow, v;
};

// Decodes the state of `row`, an `adam` row of float arithmetic, as the next step would read it.
void decode_moments(const Row &row, const Group &group, const Moments &to);

// Encodes moments as the state of `row`, whose step counter says how many steps made them. Lossy
// codecs round with the random bits of that step.
void encode_moments(Row &row, const Group &group, uint64_t seed, const Moments &from);

} // namespace cosmic
