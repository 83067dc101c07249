// Rule `rmsprop`: a second moment without a first, which costs no state by the element when v is
// kept by rows and columns.
//   v <- beta2 v + (1 - beta2) g^2
//   u = g / (sqrt(v) v_scale + eps)        p <- decay p - step u
// What clips such a bare gradient is part of `step`: rules/update_clip.h.
#pragma once

#if defined(COSMIC_TARGET) // the arithmetic, on lanes

#include "rules/slots.h"

namespace cosmic::COSMIC_TARGET {

template <class Real, bool /*kWithSlow*/> struct RmsProp {
  static constexpr bool kDecaysM = true;
  static constexpr bool kFirst = false, kSecond = true, kSlow = false, kShares = false;
  static constexpr bool kMomentsApart = true;
  using V = Lanes<Real>;
  V gradient2, v_scale, eps, decay, step;

  COSMIC_METHOD explicit RmsProp(const Coefficients &c)
      : gradient2(V::splat((Real)c.gradient2)), v_scale(V::splat((Real)c.v_scale)),
        eps(V::splat((Real)c.eps)), decay(V::splat((Real)c.decay)), step(V::splat((Real)c.step)) {}

  COSMIC_METHOD V update(V p, V g, Slots<V> &s, V &u) const {
    update_second(g, s);
    return update_first(p, g, s, u);
  }
  COSMIC_METHOD void update_second(V g, Slots<V> &s) const {
    s.v = s.v + gradient2 * g * g;
    s.root = sqrt(s.v);
    s.denominator = s.root * v_scale + eps;
  }
  // From the denominator on.
  COSMIC_METHOD V update_first(V p, V g, Slots<V> &s, V &u) const {
    u = g / s.denominator;
    return decay * p - step * u;
  }
  // With numbers for the registers of one half of a step.
  COSMIC_METHOD RmsProp held() const {
    RmsProp out = *this;
    out.gradient2 = COSMIC_TARGET::held(gradient2);
    out.v_scale = COSMIC_TARGET::held(v_scale);
    out.eps = COSMIC_TARGET::held(eps);
    out.decay = COSMIC_TARGET::held(decay);
    out.step = COSMIC_TARGET::held(step);
    return out;
  }
};

} // namespace cosmic::COSMIC_TARGET

#else // what it says of itself

#include "parts/rule.h"
#include "rules/update_clip.h"

namespace cosmic::parts {

inline void set_rmsprop(Coefficients &c, const double *numbers, const RuleStep &step) {
  rules::set_second_moment(c, step);
  c.update_scale = update_clip::factor(*numbers) * step.gate;
  c.step = step.sign * step.lr * c.update_scale;
}

inline bool observe_rmsprop(double *numbers, const Sums &sums, const RuleStep & /*step*/) {
  update_clip::observe(*numbers, sums.unscaled_rms);
  return true;
}

inline RulePart rmsprop() {
  RulePart part;
  part.name = "rmsprop";
  part.tier = 1;
  part.second = true;
  part.numbers = {"update_rms", {{"RMS of the update before any factor"}}};
  part.coefficients = set_rmsprop;
  part.observe = observe_rmsprop;
  return part;
}

} // namespace cosmic::parts

#endif
