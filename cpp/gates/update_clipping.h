// Gate `update_clipping`, which option `clip_update` asks for: Adafactor's update clipping (Shazeer
// & Stern, arXiv 1804.04235, section 6), of any tier.
//   factor = min(1, clip_update / R_u)
#pragma once

#include "gates/norms.h"

#if !defined(COSMIC_TARGET)

namespace cosmic::parts {

namespace clipping_to_rms {

enum { kMost = norms::kFirstOfGate };

inline double factor(const double *numbers, const GateStep &step) {
  const double u = norms::update_rms(numbers), most = step.options[kMost];
  return u > 0 && most > 0 ? std::min(1.0, most / u) : 1.0;
}

} // namespace clipping_to_rms

inline GatePart update_clipping() {
  GatePart part = norms::gate("update_clipping",
                              {{"clip_update", kAboveZero, kHuge, "None, or a finite number > 0", 0,
                                PartOption::If::none_is_zero}});
  part.factor = clipping_to_rms::factor;
  part.implied_by = "clip_update";
  return part;
}

} // namespace cosmic::parts

#endif
