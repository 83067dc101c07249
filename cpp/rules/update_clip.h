// The length of an update without momentum: kScale / max(1, r), where r is the root mean square
// that the tensor's update had at its last step, before any factor. This is Adafactor's update
// clipping at d = 1 (Shazeer & Stern, arXiv 1804.04235, section 6) by the RMS of the step before,
// so that a step stays one pass over memory; measured, the two train equally well.
#pragma once

#include <algorithm>
#include <cmath>

namespace cosmic::update_clip {

// Without an average the update's RMS is about 1, Adam's 0.229 for beta1 = 0.9. Measured: with this
// factor the learning rate that suits AdamW suits this rule.
constexpr double kScale = 0.3;

// Zero, before the first step, does not clip; neither does what is not a number.
inline double factor(double last_rms) { return 1.0 / std::max(1.0, last_rms); }

// One bad element must not decide on the next step of the whole tensor.
inline void observe(double &state, double rms) {
  if (std::isfinite(rms)) state = rms;
}

} // namespace cosmic::update_clip
