// Gate `agc`: an update is never longer than a share of its tensor, adaptive gradient clipping
// (Brock et al., arXiv 2102.06171) of what the tensor is about to move by, not of the gradient.
//   factor = min(1, agc_clip R_p / R_u)        1 where agc_clip is 0
#pragma once

#include "gates/norms.h"

#if !defined(COSMIC_TARGET)

namespace cosmic::parts {

namespace adaptive_clipping {

enum { kClip = norms::kFirstOfGate };

inline double factor(const double *numbers, const GateStep &step) {
  const double u = norms::update_rms(numbers);
  if (!(u > 0 && step.options[kClip] > 0)) return 1;
  return std::min(1.0, step.options[kClip] * norms::param_rms(numbers, step) / u);
}

} // namespace adaptive_clipping

inline GatePart agc() {
  GatePart part = norms::gate(
      "agc", {{"agc_clip", 0, kHuge, "a finite number >= 0", 10, PartOption::If::required}});
  part.factor = adaptive_clipping::factor;
  return part;
}

} // namespace cosmic::parts

#endif
