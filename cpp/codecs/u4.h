// `u4`: an average of the gradient in update units, 4 bits. Stored is u = m / (sqrt(v) v_scale +
// eps), which the step computes anyway; m is rebuilt with the decoded v. In absolute units 4 bits
// cost quality, because a block's elements differ by orders of magnitude; their updates do not.
// Layout: 64 bytes of codes and one bf16 scale a block: 4.125 bits an element. Codes 1..15 stand
// for -7..7 scales. Rounding is stochastic and unbiased in u.
#pragma once

#if defined(COSMIC_TARGET) // the arithmetic, on lanes

#include "codecs/signed_levels.h"

namespace cosmic::COSMIC_TARGET {

using U4 = Blockwise<SignedLevels<4, true>>;

} // namespace cosmic::COSMIC_TARGET

#else // what it says of itself

#include "parts/codec.h"

namespace cosmic::parts {

inline CodecPart u4() {
  CodecPart part;
  part.name = "u4";
  part.first = {planes::codes(4), planes::bf16_of_block("scale")};
  return part;
}

} // namespace cosmic::parts

#endif
