// `u1`: an average of the gradient in update units (see u4.h), 1 bit: two mid-rise levels at -0.5
// and 0.5 steps of 1.596 RMS. Layout: 16 bytes of codes and one bf16 step a block: 1.125 bits an
// element. Rounding is stochastic, unbiased within half a step; what lies beyond is clamped, which
// shortens the average's memory.
#pragma once

#include "codecs/midrise.h"

namespace cosmic::COSMIC_TARGET {

using U1 = Blockwise<Midrise<1>>;

} // namespace cosmic::COSMIC_TARGET
