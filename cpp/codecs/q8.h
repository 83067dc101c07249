// `q8`: 8 bits an element for both moments.
// An average of the gradient: signed integers under the block's absmax. Layout: 128 bytes of codes
// and one bf16 scale a block: 8.125 bits. Rounding is stochastic and unbiased.
// The second moment: the aligned bits of aligned_bits.h with 255 steps. Layout: 128 bytes of codes
// and one 32-bit word a block: 8.25 bits. Rounding is stochastic and unbiased in v.
#pragma once

#include "codecs/aligned_bits.h"
#include "codecs/signed_levels.h"

namespace cosmic::COSMIC_TARGET {

using Q8 = Blockwise<SignedLevels<8, false>>;
using Q8Square = Blockwise<AlignedBits<8>>;

} // namespace cosmic::COSMIC_TARGET
