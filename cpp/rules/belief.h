// Rule `belief`: the second moment is taken about the first, as in AdaBelief (Zhuang et al., arXiv
// 2010.07468), and the update is Adam's with a coordinate's own gate (gates/agar.h).
//   s <- beta2 s + (1 - beta2) (g - m)^2, m of the step before
//   m <- beta1 m + (1 - beta1) g
//   w = m_hat / (sqrt(m_hat^2 + s_hat) + eps)        u = focus(w^2) w        p <- decay p - step u
// w^2 is the share of the signal in the coordinate's gradients: AGAR.
#pragma once

#if defined(COSMIC_TARGET) // the arithmetic, on lanes

#include "rules/slots.h"

namespace cosmic::COSMIC_TARGET {

template <class Real, bool /*kWithSlow*/> struct Belief {
  static constexpr bool kDecaysM = false; // the average itself is needed
  static constexpr bool kFirst = true, kSecond = true, kSlow = false, kShares = true;
  static constexpr bool kMomentsApart = false; // the second is taken about the first
  using V = Lanes<Real>;
  V beta1, gradient1, sign, gradient2, m_scale, v_scale, eps, decay, step;
  V focus_scale, focus_floor, one;

  COSMIC_METHOD explicit Belief(const Coefficients &c)
      : beta1(V::splat((Real)c.beta1)), gradient1(V::splat((Real)c.gradient1)),
        sign(V::splat(c.gradient1 < 0 ? Real(-1) : Real(1))),
        gradient2(V::splat((Real)c.gradient2)), m_scale(V::splat((Real)c.m_scale)),
        v_scale(V::splat((Real)c.v_scale)), eps(V::splat((Real)c.eps)),
        decay(V::splat((Real)c.decay)), step(V::splat((Real)c.step)),
        focus_scale(V::splat((Real)c.focus_scale)), focus_floor(V::splat((Real)c.focus_floor)),
        one(V::splat(Real(1))) {}

  COSMIC_METHOD V update(V p, V g, Slots<V> &s, V &u) const {
    const V surprise = sign * g - s.m;
    s.v = s.v + gradient2 * surprise * surprise;
    s.m = beta1 * s.m + gradient1 * g;
    s.root = sqrt(s.v);
    const V m_hat = m_scale * s.m, deviation = s.root * v_scale;
    s.denominator = deviation + eps;
    const V w = m_hat / (sqrt(m_hat * m_hat + deviation * deviation) + eps);
    s.signal_share = w * w;
    V focus = s.signal_share * focus_scale;
    focus = where_greater(focus, focus_floor, focus, focus_floor);
    u = where_greater(one, focus, focus, one) * w;
    return decay * p - step * u;
  }
};

} // namespace cosmic::COSMIC_TARGET

#else // what it says of itself

#include "parts/rule.h"

namespace cosmic::parts {

inline void set_belief(Coefficients &c, const double * /*numbers*/, const RuleStep &step) {
  rules::set_first_moment(c, step);
  rules::set_second_moment(c, step);
  c.m_scale = 1.0 / c.m_correction;
  c.update_scale = step.gate;
  c.step = step.lr * c.update_scale;
}

inline RulePart belief() {
  RulePart part;
  part.name = "belief";
  part.first = part.second = true;
  part.variant = "centered";
  part.second_name = "exp_avg_var";
  part.gate = "agar";
  part.coefficients = set_belief;
  return part;
}

} // namespace cosmic::parts

#endif
