// `u1`: an average of the gradient in update units (see u4.h), 1 bit: two mid-rise levels at -0.5
// and 0.5 steps of 1.596 RMS. Layout: 16 bytes of codes and one bf16 step a block: 1.125 bits an
// element. Rounding is stochastic, unbiased within half a step; what lies beyond is clamped, which
// shortens the average's memory.
#pragma once

#if defined(COSMIC_TARGET) // the arithmetic, on lanes

#include "codecs/midrise.h"

namespace cosmic::COSMIC_TARGET {

using U1 = Blockwise<Midrise<1>>;

} // namespace cosmic::COSMIC_TARGET

#else // what it says of itself

#include "parts/codec.h"

namespace cosmic::parts {

inline CodecPart u1() {
  CodecPart part;
  part.name = "u1";
  part.first = {planes::codes(1), planes::bf16_of_block("scale")};
  return part;
}

} // namespace cosmic::parts

#endif
