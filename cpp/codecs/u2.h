// `u2`: an average of the gradient in update units (see u4.h), 2 bits: four mid-rise levels at
// -1.5, -0.5, 0.5 and 1.5 steps of 0.996 RMS. Layout: 32 bytes of codes and one bf16 step a block:
// 2.125 bits an element. Rounding is stochastic, unbiased within 1.5 steps.
#pragma once

#include "codecs/midrise.h"

namespace cosmic::COSMIC_TARGET {

using U2 = Blockwise<Midrise<2>>;

} // namespace cosmic::COSMIC_TARGET
