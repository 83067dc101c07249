// `m8`: an average of the gradient in its own units (see m1.h), 8 bits: codes 1..255 stand for
// -127..127 scales, the scale from the block's absmax. Layout: 128 bytes of codes and one bf16
// scale a block: 8.125 bits an element. Rounding is stochastic and unbiased.
#pragma once

#if defined(COSMIC_TARGET) // the arithmetic, on lanes

#include "codecs/signed_levels.h"

namespace cosmic::COSMIC_TARGET {

using M8 = Blockwise<SignedLevels<8, false>>;

} // namespace cosmic::COSMIC_TARGET

#else // what it says of itself

#include "parts/codec.h"

namespace cosmic::parts {

inline CodecPart m8() {
  CodecPart part;
  part.name = "m8";
  part.first = {planes::codes(8), planes::bf16_of_block("scale")};
  return part;
}

} // namespace cosmic::parts

#endif
