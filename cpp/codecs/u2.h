// `u2`: an average of the gradient in update units (see u4.h), 2 bits: four mid-rise levels at
// -1.5, -0.5, 0.5 and 1.5 steps of 0.996 RMS. Layout: 32 bytes of codes and one bf16 step a block:
// 2.125 bits an element. Rounding is stochastic, unbiased within 1.5 steps.
#pragma once

#if defined(COSMIC_TARGET) // the arithmetic, on lanes

#include "codecs/midrise.h"

namespace cosmic::COSMIC_TARGET {

using U2 = Blockwise<Midrise<2>>;

} // namespace cosmic::COSMIC_TARGET

#else // what it says of itself

#include "parts/codec.h"

namespace cosmic::parts {

inline CodecPart u2() {
  CodecPart part;
  part.name = "u2";
  part.first = {planes::codes(2), planes::bf16_of_block("scale")};
  return part;
}

} // namespace cosmic::parts

#endif
