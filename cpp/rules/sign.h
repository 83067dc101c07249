// Rules `sign` and `scalar_sign`: p <- decay p - step sign(g). The scalar of tier 1 is part of
// `step`. A zero gradient moves nothing; a NaN spoils its own element.
#pragma once

#if defined(COSMIC_TARGET) // the arithmetic, on lanes

#include "rules/slots.h"

namespace cosmic::COSMIC_TARGET {

template <class Real, bool /*kWithSlow*/> struct Sign {
  static constexpr bool kDecaysM = true;
  static constexpr bool kFirst = false, kSecond = false, kSlow = false, kShares = false;
  static constexpr bool kMomentsApart = false;
  using V = Lanes<Real>;
  V decay, step, one, minus_one, zero;

  COSMIC_METHOD explicit Sign(const Coefficients &c)
      : decay(V::splat((Real)c.decay)), step(V::splat((Real)c.step)), one(V::splat(Real(1))),
        minus_one(V::splat(Real(-1))), zero(V::splat(Real(0))) {}

  COSMIC_METHOD V update(V p, V g, Slots<V> & /*none*/, V &u) const {
    // neither greater nor smaller than zero: zero itself or NaN, which is its own sign
    u = where_greater(g, zero, one, where_greater(zero, g, minus_one, g));
    return decay * p - step * u;
  }
};

} // namespace cosmic::COSMIC_TARGET

#else // what it says of itself

#include "parts/rule.h"

namespace cosmic::parts {

inline void set_sign_of(Coefficients &c, double magnitude, const RuleStep &step) {
  c.update_scale = rules::sign_scale(step.group.beta1) * magnitude * step.gate;
  c.step = step.sign * step.lr * c.update_scale;
}

inline void set_sign(Coefficients &c, const double * /*numbers*/, const RuleStep &step) {
  set_sign_of(c, 1.0, step);
}

inline RulePart sign() {
  RulePart part;
  part.name = "sign";
  part.tier = 0;
  part.counts = false;
  part.coefficients = set_sign;
  return part;
}

} // namespace cosmic::parts

#endif
