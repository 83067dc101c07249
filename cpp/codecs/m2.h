// `m2`: an average of the gradient in its own units (see m1.h), 2 bits: `u2`'s levels at -1.5,
// -0.5, 0.5 and 1.5 steps of 0.996 RMS of the block. Layout: 32 bytes of codes and one bf16 step a
// block: 2.125 bits an element. Rounding is stochastic, unbiased within 1.5 steps.
#pragma once

#if defined(COSMIC_TARGET) // the arithmetic, on lanes

#include "codecs/midrise.h"

namespace cosmic::COSMIC_TARGET {

using M2 = Blockwise<Midrise<2, false>>;

} // namespace cosmic::COSMIC_TARGET

#else // what it says of itself

#include "parts/codec.h"

namespace cosmic::parts {

inline CodecPart m2() {
  CodecPart part;
  part.name = "m2";
  part.first = {planes::codes(2), planes::bf16_of_block("scale")};
  return part;
}

} // namespace cosmic::parts

#endif
