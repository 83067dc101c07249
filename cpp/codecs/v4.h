// `v4`: the second moment in 4 bits, as aligned bits (aligned_bits.h) with 15 steps, or with 14 and
// a code for zero in blocks that hold zeros.
// Layout: 64 bytes of codes and one 16-bit word a block: 4.125 bits an element. Rounding is
// stochastic and unbiased in v.
#pragma once

#if defined(COSMIC_TARGET) // the arithmetic, on lanes

#include "codecs/aligned_bits.h"

namespace cosmic::COSMIC_TARGET {

using V4 = Blockwise<AlignedBits<4>>;

} // namespace cosmic::COSMIC_TARGET

#else // what it says of itself

#include "parts/codec.h"

namespace cosmic::parts {

inline CodecPart v4() {
  CodecPart part;
  part.name = "v4";
  part.second = {planes::codes(4), {"scale", "int16", dlpack::kInt, 16, PlaneOf::Each::block}};
  return part;
}

} // namespace cosmic::parts

#endif
