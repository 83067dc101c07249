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
  using V = Lanes<Real>;
  V beta1, gradient1, beta2, gradient2, v_scale, eps, decay, step;
  V beta_slow, gradient_slow, m_scale, alpha;

  COSMIC_METHOD explicit Adam(const Coefficients &c)
      : beta1(V::splat((Real)c.beta1)), gradient1(V::splat((Real)c.gradient1)),
        beta2(V::splat((Real)c.beta2)), gradient2(V::splat((Real)c.gradient2)),
        v_scale(V::splat((Real)c.v_scale)), eps(V::splat((Real)c.eps)),
        decay(V::splat((Real)c.decay)), step(V::splat((Real)c.step)),
        beta_slow(V::splat((Real)c.beta_slow)), gradient_slow(V::splat((Real)c.gradient_slow)),
        m_scale(V::splat((Real)c.m_scale)), alpha(V::splat((Real)c.alpha)) {}

  // Returns the new parameter; `u` is the update before the learning rate.
  COSMIC_METHOD V update(V p, V g, Slots<V> &s, V &u) const {
    s.m = beta1 * s.m + gradient1 * g;
    s.v = beta2 * s.v + gradient2 * g * g;
    V numerator = s.m;
    if constexpr (kSlow) {
      s.m_slow = beta_slow * s.m_slow + gradient_slow * g;
      numerator = m_scale * s.m + alpha * s.m_slow;
    }
    u = numerator / (sqrt(s.v) * v_scale + eps);
    return decay * p - step * u;
  }
};

} // namespace cosmic::COSMIC_TARGET
