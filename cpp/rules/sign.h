// Rules `sign` and `scalar_sign`: p <- decay p - step sign(g). The scalar of tier 1 is part of
// `step`. A zero gradient moves nothing; a NaN spoils its own element.
#pragma once

#include "rules/slots.h"

namespace cosmic::COSMIC_TARGET {

template <class Real> struct Sign {
  static constexpr bool kDecaysM = true;
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
