// A part of the core's test of itself: what a step and a measuring pass add up for whoever asks.
#pragma once

#include "kernels/kernels.h"

namespace cosmic {

// Steps every combination with probes in pairs and with the sum of the squared new parameter,
// and measures it before that, matrices included. Throws Error where state or sums are not those of
// the plain step, of one probe alone, of the step for the measuring pass, or of the parameter.
void check_probes(const Kernels &kernels);

} // namespace cosmic
