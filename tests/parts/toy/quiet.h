// Gate `quiet`: the share of a tensor's elements that have a gradient, `quiet_least` at least.
#pragma once

#if defined(COSMIC_TARGET) // the arithmetic, on lanes: its probe

#include "gates/no_probe.h"

namespace cosmic::COSMIC_TARGET {

// Adds up how many gradients are not zero.
template <class Real> struct NonZero : NoProbe<Real> {
  static constexpr int kSums = 1;
  static constexpr bool kMeasures = true;
  using V = Lanes<Real>;

  COSMIC_METHOD explicit NonZero(const Coefficients &c) : NoProbe<Real>(c) {}
  COSMIC_METHOD void look(const Slots<V> & /*slots*/, const V &gradient, V *terms) const {
    const V zero = V::splat(Real(0));
    terms[0] = where_greater(abs(gradient), zero, V::splat(Real(1)), zero);
  }
};

} // namespace cosmic::COSMIC_TARGET

#else // what it says of itself

#include <algorithm>

#include "parts/gate.h"

namespace cosmic::parts {

namespace quiet_gate {

enum { kLeast };           // options
enum { kShare, kParamRms }; // numbers

inline double factor(const double *numbers, const GateStep &step) {
  return std::max(numbers[kShare], step.options[kLeast]);
}

inline void observe(double *numbers, const Sums &sums, const GateStep & /*step*/) {
  numbers[kShare] = sums.probed[0] / sums.numel;
  numbers[kParamRms] = sums.param_rms;
}

} // namespace quiet_gate

inline GatePart quiet() {
  GatePart part;
  part.name = "quiet";
  part.options = {{"quiet_least", 0, 1, "a number in [0, 1]", 0.1, PartOption::If::absent}};
  part.numbers = {"gate_quiet", {{"share", 1}, {"RMS of the parameter"}}};
  part.probe = "nonzero";
  part.square_param = true;
  part.factor = quiet_gate::factor;
  part.observe = quiet_gate::observe;
  return part;
}

} // namespace cosmic::parts

#endif
