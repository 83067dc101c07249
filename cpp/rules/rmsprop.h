// Rule `rmsprop`: a second moment without a first, which costs no state by the element when v is
// kept by rows and columns.
//   v <- beta2 v + (1 - beta2) g^2
//   u = g / (sqrt(v) v_scale + eps)        p <- decay p - step u
// What holds such a bare gradient to Adam's step length is part of `step`: rules/update_clip.h.
#pragma once

#include "rules/slots.h"

namespace cosmic::COSMIC_TARGET {

template <class Real> struct RmsProp {
  static constexpr bool kDecaysM = true;
  using V = Lanes<Real>;
  V gradient2, v_scale, eps, decay, step;

  COSMIC_METHOD explicit RmsProp(const Coefficients &c)
      : gradient2(V::splat((Real)c.gradient2)), v_scale(V::splat((Real)c.v_scale)),
        eps(V::splat((Real)c.eps)), decay(V::splat((Real)c.decay)), step(V::splat((Real)c.step)) {}

  COSMIC_METHOD V update(V p, V g, Slots<V> &s, V &u) const {
    s.v = s.v + gradient2 * g * g;
    s.root = sqrt(s.v);
    u = g / (s.root * v_scale + eps);
    return decay * p - step * u;
  }
};

} // namespace cosmic::COSMIC_TARGET
