// Rule `adam`: decoupled weight decay (Loshchilov & Hutter, arXiv 1711.05101) and, with a slow
// slot, the second, slower average of the gradient of AdEMAMix (Pagliardini et al., 2409.03137).
//   m <- beta1 m + (1 - beta1) g        v <- beta2 v + (1 - beta2) g^2
//   m_slow <- beta_slow m_slow + (1 - beta_slow) g
//   u = (m_scale m + alpha m_slow) / (sqrt(v) v_scale + eps)        p <- decay p - step u
// Without a slow slot m_scale is folded into step.
#pragma once

#include "rules/slots.h"

namespace cosmic::COSMIC_TARGET {

template <class Real, bool kSlow> struct Adam {
  static constexpr bool kDecaysM = true;
  using V = Lanes<Real>;
  V gradient1, gradient2, v_scale, eps, decay, step;
  V gradient_slow, m_scale, alpha;

  COSMIC_METHOD explicit Adam(const Coefficients &c)
      : gradient1(V::splat((Real)c.gradient1)), gradient2(V::splat((Real)c.gradient2)),
        v_scale(V::splat((Real)c.v_scale)), eps(V::splat((Real)c.eps)),
        decay(V::splat((Real)c.decay)), step(V::splat((Real)c.step)),
        gradient_slow(V::splat((Real)c.gradient_slow)), m_scale(V::splat((Real)c.m_scale)),
        alpha(V::splat((Real)c.alpha)) {}

  // The slots come decayed, beta m. Returns the new parameter; `u` is the update before the
  // learning rate.
  COSMIC_METHOD V update(V p, V g, Slots<V> &s, V &u) const {
    s.m = s.m + gradient1 * g;
    s.v = s.v + gradient2 * g * g;
    V numerator = s.m;
    if constexpr (kSlow) {
      s.m_slow = s.m_slow + gradient_slow * g;
      numerator = m_scale * s.m + alpha * s.m_slow;
    }
    s.root = sqrt(s.v);
    s.denominator = s.root * v_scale + eps;
    u = numerator / s.denominator;
    return decay * p - step * u;
  }
};

} // namespace cosmic::COSMIC_TARGET
