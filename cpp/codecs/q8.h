// `q8`: 8 bits an element for both moments.
// An average of the gradient: in update units, as `u4` has them, signed integers under the block's
// absmax (signed_levels.h). Layout: 128 bytes of codes and one bf16 scale a block: 8.125 bits.
// Rounding is stochastic and unbiased in u.
// The second moment: its square root as aligned bits with a code for zero (aligned_roots.h).
// Layout: 128 bytes of codes and one 32-bit word a block: 8.25 bits. Rounding is stochastic, and
// unbiased in v over steps.
// Plain tensors have forms of their own, which states once had, too: `q8`, signed integers under
// the absmax with an offset, and `v8`, the aligned bits of aligned_bits.h with 255 steps.
#pragma once

#if defined(COSMIC_TARGET) // the arithmetic, on lanes

#include "codecs/aligned_bits.h"
#include "codecs/aligned_roots.h"
#include "codecs/signed_levels.h"

namespace cosmic::COSMIC_TARGET {

using Q8 = Blockwise<SignedLevels<8, true>>;
struct Q8Square : Blockwise<AlignedRoots> {
  static constexpr bool kKeepsRoots = true;
  using Blockwise::Blockwise;
};

using PlainQ8 = Blockwise<SignedLevels<8, false>>;
using PlainV8 = Blockwise<AlignedBits<8>>;

} // namespace cosmic::COSMIC_TARGET

#else // what it says of itself

#include "parts/codec.h"

namespace cosmic::parts {

inline CodecPart q8() {
  CodecPart part;
  part.name = "q8";
  part.first = {planes::codes(8), planes::bf16_of_block("scale")};
  part.second = {planes::codes(8), {"scale", "int32", dlpack::kInt, 32, PlaneOf::Each::block}};
  return part;
}

} // namespace cosmic::parts

#endif
