// `m1`: an average of the gradient in its own units, 1 bit: `u1`'s levels at -0.5 and 0.5 steps of
// 1.596 RMS of the block. For rules that keep no second moment to take units from: one that
// orthogonalizes the average of a whole matrix averages the rounding, too. Layout: 16 bytes of
// codes and one bf16 step a block: 1.125 bits an element. Rounding is stochastic, unbiased within
// half a step.
#pragma once

#if defined(COSMIC_TARGET) // the arithmetic, on lanes

#include "codecs/midrise.h"

namespace cosmic::COSMIC_TARGET {

using M1 = Blockwise<Midrise<1, false>>;

} // namespace cosmic::COSMIC_TARGET

#else // what it says of itself

#include "parts/codec.h"

namespace cosmic::parts {

inline CodecPart m1() {
  CodecPart part;
  part.name = "m1";
  part.first = {planes::codes(1), planes::bf16_of_block("scale")};
  return part;
}

} // namespace cosmic::parts

#endif
