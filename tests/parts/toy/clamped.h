// Rule `clamped`: Adam whose every update is held to [-clamp, clamp].
//   m <- beta1 m + (1 - beta1) g        v <- beta2 v + (1 - beta2) g^2
//   u = clip(m_hat / (sqrt(v_hat) + eps), -clamp, clamp)        p <- decay p - step u
#pragma once

#if defined(COSMIC_TARGET) // the arithmetic, on lanes

#include "rules/slots.h"

namespace cosmic::COSMIC_TARGET {

template <class Real, bool kWithSlow> struct Clamped {
  static constexpr bool kDecaysM = true;
  static constexpr bool kFirst = true, kSecond = true, kSlow = false, kShares = false;
  using V = Lanes<Real>;
  V gradient1, gradient2, m_scale, v_scale, eps, decay, step, most;

  COSMIC_METHOD explicit Clamped(const Coefficients &c)
      : gradient1(V::splat((Real)c.gradient1)), gradient2(V::splat((Real)c.gradient2)),
        m_scale(V::splat((Real)c.m_scale)), v_scale(V::splat((Real)c.v_scale)),
        eps(V::splat((Real)c.eps)), decay(V::splat((Real)c.decay)), step(V::splat((Real)c.step)),
        most(V::splat((Real)c.of_rule[0])) {}

  COSMIC_METHOD V update(V p, V g, Slots<V> &s, V &u) const {
    s.m = s.m + gradient1 * g;
    s.v = s.v + gradient2 * g * g;
    s.root = sqrt(s.v);
    s.denominator = s.root * v_scale + eps;
    u = m_scale * s.m / s.denominator;
    u = where_greater(u, most, most, u);
    const V least = V::splat(Real(0)) - most;
    u = where_greater(least, u, least, u);
    return decay * p - step * u;
  }
};

} // namespace cosmic::COSMIC_TARGET

#else // what it says of itself

#include "parts/rule.h"

namespace cosmic::parts {

inline void set_clamped(Coefficients &c, const double * /*numbers*/, const RuleStep &step) {
  rules::set_first_moment(c, step);
  rules::set_second_moment(c, step);
  c.m_scale = 1.0 / c.m_correction;
  c.of_rule[0] = step.options[0];
  c.update_scale = step.gate;
  c.step = step.group.lr * c.update_scale;
}

inline RulePart clamped() {
  RulePart part;
  part.name = "clamped";
  part.options = {{"clamp", 0, kHuge, "a finite number >= 0", 0.25, PartOption::If::absent}};
  part.first = part.second = true;
  part.variant = "clamped";
  part.goes_with = {{"fp32", "fp32"}, {"u4", "v4"}};
  part.coefficients = set_clamped;
  return part;
}

} // namespace cosmic::parts

#endif
