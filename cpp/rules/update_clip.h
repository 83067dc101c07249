// The length of an update without momentum: 1 / max(1, r), where r is the root mean square that the
// tensor's update had at its last step, before any factor. This is Adafactor's update clipping at
// d = 1 (Shazeer & Stern, arXiv 1804.04235, section 6) by the RMS of the step before, so that a
// step stays one pass over memory; measured, the two train equally well.
// There is no factor for the average that is missing: an average spreads each gradient over some
// steps and leaves its whole effect as it is, so that AdamW's learning rate goes as far without it
// (Wang et al., arXiv 2307.15196). A factor of 0.3, which makes single updates as long as Adam's,
// was AdamW at a third of the rate on every task that was measured.
#pragma once

#include <algorithm>
#include <cmath>

namespace cosmic::update_clip {

// Zero, before the first step, does not clip; neither does what is not a number.
inline double factor(double last_rms) { return 1.0 / std::max(1.0, last_rms); }

// One bad element must not decide on the next step of the whole tensor.
inline void observe(double &state, double rms) {
  if (std::isfinite(rms)) state = rms;
}

} // namespace cosmic::update_clip
