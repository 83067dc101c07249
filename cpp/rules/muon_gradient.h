// Rule `muon_gradient`: rule `muon` without momentum, for hidden matrices. It keeps no number an
// element.
//   u = scale orth(g)                 p <- decay p - step u
// Steepest descent under the spectral norm (Bernstein & Newhouse, arXiv 2409.20325). The tensor's
// own count of steps says when its turn is, where not every step is.
#pragma once

#if defined(COSMIC_TARGET) // the arithmetic, on lanes

#include "rules/slots.h"

namespace cosmic::COSMIC_TARGET {

template <class Real, bool /*kWithSlow*/> struct MuonGradient {
  static constexpr bool kDecaysM = true;
  static constexpr bool kFirst = false, kSecond = false, kSlow = false, kShares = false;
  static constexpr bool kMomentsApart = false;
  using V = Lanes<Real>;
  V of_gradient;

  COSMIC_METHOD explicit MuonGradient(const Coefficients &c)
      : of_gradient(V::splat((Real)c.of_rule[0])) {}

  COSMIC_METHOD V update(V /*p*/, V g, Slots<V> & /*none*/, V &u) const {
    u = of_gradient * g;
    return u;
  }
};

} // namespace cosmic::COSMIC_TARGET

#else // what it says of itself

#include "rules/muon.h"

namespace cosmic::parts {

// Noise is not averaged, but all of a gradient's effect comes at once: measured on five tasks, this
// suits the learning rate of AdamW and of rule `muon`.
constexpr double kOfGradientAlone = 3;

inline void set_muon_gradient(Coefficients &c, const double * /*numbers*/, const RuleStep &step) {
  c.of_rule[0] = step.sign;
  set_descent_of_matrix(c, step);
}

inline MatrixHow muon_gradient_matrix(const Group &group, const double *options) {
  MatrixHow how = muon_matrix(group, options);
  how.factor = kOfGradientAlone;
  return how;
}

inline RulePart muon_gradient() {
  RulePart part;
  part.name = "muon_gradient";
  part.tier = 1;
  part.variant = "muon";
  part.options = muon().options; // of which momentum and nesterov have no effect
  part.coefficients = set_muon_gradient;
  part.matrix = muon_gradient_matrix;
  part.goes_with = {{"none", "none"}};
  return part;
}

} // namespace cosmic::parts

#endif
