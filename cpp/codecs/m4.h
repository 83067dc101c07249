// `m4`: an average of the gradient in its own units (see m1.h), 4 bits: codes 1..15 stand for -7..7
// scales, the scale from the block's absmax. Layout: 64 bytes of codes and one bf16 scale a block:
// 4.125 bits an element. Rounding is stochastic and unbiased.
#pragma once

#if defined(COSMIC_TARGET) // the arithmetic, on lanes

#include "codecs/signed_levels.h"

namespace cosmic::COSMIC_TARGET {

using M4 = Blockwise<SignedLevels<4, false>>;

} // namespace cosmic::COSMIC_TARGET

#else // what it says of itself

#include "parts/codec.h"

namespace cosmic::parts {

inline CodecPart m4() {
  CodecPart part;
  part.name = "m4";
  part.first = {planes::codes(4), planes::bf16_of_block("scale")};
  return part;
}

} // namespace cosmic::parts

#endif
