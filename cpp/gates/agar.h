// Gate `agar`: how far a coordinate's gradients agree decides how far it moves. With w^2 a
// coordinate's share of signal (rules/belief.h) and a its mean over the tensor, at the step before:
//   trust = c_min + (1 - c_min) a        focus = clip(w^2 / a, rel_floor, 1)
//   u = trust^robustness focus w
// This is the per-coordinate gate of CASMO's redesign (AGAR, its repository's release 0.4), with
// the mean of the step before, so that a step stays one pass over memory. Its probe adds up w^2.
#pragma once

#if defined(COSMIC_TARGET) // the arithmetic, on lanes

#include "gates/no_probe.h"

namespace cosmic::COSMIC_TARGET {

template <class Real> struct Share {
  using Look = NoLook;
  static constexpr int kFirstSum = 0, kSums = 1;
  static constexpr bool kMeasures = false, kLooksTwice = false, kSelects = false, kSeesV = true;
  using V = Lanes<Real>;

  COSMIC_METHOD explicit Share(const Coefficients & /*c*/) {}
  COSMIC_METHOD void look(const Slots<V> &slots, const V & /*gradient*/, V *terms) const {
    const V zero = V::splat(Real(0)); // also for a coordinate that is spoiled, whose share is a NaN
    terms[0] = where_greater(slots.signal_share, zero, slots.signal_share, zero);
  }
};

} // namespace cosmic::COSMIC_TARGET

#else // what it says of itself

#include <cmath>

#include "parts/gate.h"

namespace cosmic::parts {

namespace trust_and_focus {

enum { kCMin, kRobustness, kRelFloor }; // options
enum { kMean };

// Of gradients that have been seen once, exactly: m_hat^2 and s_hat are both g^2.
constexpr double kFirstMean = 0.5;

inline double mean(const double *numbers) {
  return numbers[kMean] > 0 ? numbers[kMean] : kFirstMean;
}

inline double factor(const double *numbers, const GateStep &step) {
  const double c_min = step.options[kCMin];
  return std::pow(c_min + (1.0 - c_min) * mean(numbers), step.options[kRobustness]);
}

inline void set_focus(Coefficients &c, const double *numbers, const GateStep &step) {
  c.focus_scale = 1.0 / mean(numbers);
  c.focus_floor = step.options[kRelFloor];
}

inline void observe(double *numbers, const Sums &sums, const GateStep & /*step*/) {
  const double share = sums.probed[0] / sums.numel;
  if (std::isfinite(share)) numbers[kMean] = share;
}

} // namespace trust_and_focus

inline GatePart agar() {
  GatePart part;
  part.name = "agar";
  part.options = {gate_c_min(),
                  {"robustness", 0, kHuge, "a finite number >= 0", 1, PartOption::If::required},
                  {"rel_floor", 0, 1, "a number in [0, 1]", 0.1, PartOption::If::required}};
  part.numbers = {"gate_agar", {{"mean of w^2"}}};
  part.probe = "share";
  part.rule = "belief";
  part.factor = trust_and_focus::factor;
  part.coefficients = trust_and_focus::set_focus;
  part.observe = trust_and_focus::observe;
  return part;
}

} // namespace cosmic::parts

#endif
