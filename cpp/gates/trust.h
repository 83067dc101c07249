// Gate `trust`: a tensor moves in proportion to its own size, as in LARS (You et al., arXiv
// 1708.03888) and LAMB (1904.00962).
//   factor = min(max(trust_coefficient R_p / R_u, trust_min), trust_clip)
// Between its bounds the step's norm is lr times the parameter's, whatever the gradient's.
#pragma once

#include "gates/norms.h"

#if !defined(COSMIC_TARGET)

namespace cosmic::parts {

namespace trust_ratio {

enum { kCoefficient = norms::kFirstOfGate, kLeast, kMost };

inline double factor(const double *numbers, const GateStep &step) {
  const double u = norms::update_rms(numbers);
  if (!(u > 0)) return 1;
  const double ratio = step.options[kCoefficient] * norms::param_rms(numbers, step) / u;
  return std::min(std::max(ratio, step.options[kLeast]), step.options[kMost]);
}

inline const char *refuse(const double *options) {
  return options[kLeast] > options[kMost] ? "trust_min above trust_clip; expected no more than that"
                                          : norms::refuse(options);
}

} // namespace trust_ratio

inline GatePart trust() {
  GatePart part = norms::gate(
      "trust",
      {{"trust_coefficient", kAboveZero, kHuge, "a finite number > 0", 1, PartOption::If::required},
       {"trust_min", 0, kHuge, "a finite number >= 0", 0, PartOption::If::required},
       {"trust_clip", kAboveZero, kHuge, "a finite number > 0", 10, PartOption::If::required}});
  part.factor = trust_ratio::factor;
  part.refuse = trust_ratio::refuse;
  return part;
}

} // namespace cosmic::parts

#endif
