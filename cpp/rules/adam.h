// Rule `adam`: decoupled weight decay (Loshchilov & Hutter, arXiv 1711.05101) and, with a slow
// slot, the second, slower average of the gradient of AdEMAMix (Pagliardini et al., 2409.03137).
//   m <- beta1 m + (1 - beta1) g        v <- beta2 v + (1 - beta2) g^2
//   m_slow <- beta_slow m_slow + (1 - beta_slow) g
//   u = (m_scale m + alpha m_slow) / (sqrt(v) v_scale + eps)        p <- decay p - step u
// Without a slow slot m_scale is folded into step.
#pragma once

#if defined(COSMIC_TARGET) // the arithmetic, on lanes

#include "rules/slots.h"

namespace cosmic::COSMIC_TARGET {

template <class Real, bool kWithSlow> struct Adam {
  static constexpr bool kDecaysM = true;
  static constexpr bool kFirst = true, kSecond = true, kSlow = kWithSlow, kShares = false;
  static constexpr bool kMomentsApart = true;
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
    s.m = s.m + gradient1 * g;
    V numerator = s.m;
    if constexpr (kSlow) {
      s.m_slow = s.m_slow + gradient_slow * g;
      numerator = m_scale * s.m + alpha * s.m_slow;
    }
    u = numerator / s.denominator;
    return decay * p - step * u;
  }
  // With numbers for the registers of one half of a step.
  COSMIC_METHOD Adam held() const {
    Adam out = *this;
    out.gradient1 = COSMIC_TARGET::held(gradient1);
    out.gradient2 = COSMIC_TARGET::held(gradient2);
    out.v_scale = COSMIC_TARGET::held(v_scale);
    out.eps = COSMIC_TARGET::held(eps);
    out.decay = COSMIC_TARGET::held(decay);
    out.step = COSMIC_TARGET::held(step);
    out.gradient_slow = COSMIC_TARGET::held(gradient_slow);
    out.m_scale = COSMIC_TARGET::held(m_scale);
    out.alpha = COSMIC_TARGET::held(alpha);
    return out;
  }
};

} // namespace cosmic::COSMIC_TARGET

#else // what it says of itself

#include <cmath>

#include "parts/rule.h"

namespace cosmic::parts {

namespace adam_options {
enum { kBetaSlow, kAlpha, kSlowWarmup };
} // namespace adam_options

// AdEMAMix's schedules (arXiv 2409.03137, section 3): alpha rises linearly, beta_slow so that the
// average's half-life rises linearly from beta1's.
inline void set_slow_average(Coefficients &c, const RuleStep &step, int64_t t) {
  const double beta1 = step.group.beta1, last = step.options[adam_options::kBetaSlow];
  double alpha = step.options[adam_options::kAlpha], beta = last;
  const auto warmup = static_cast<int64_t>(step.options[adam_options::kSlowWarmup]);
  if (t < warmup) {
    const double share = static_cast<double>(t) / static_cast<double>(warmup);
    alpha *= share;
    if (beta1 > 0) {
      const double from = std::log(beta1), to = std::log(last);
      beta = std::exp(from * to / ((1.0 - share) * to + share * from));
      beta = std::fmin(beta, last);
    }
  }
  c.alpha = alpha;
  c.beta_slow = beta;
  c.gradient_slow = step.sign * (1.0 - beta);
}

inline void set_adam(Coefficients &c, const double * /*numbers*/, const RuleStep &step) {
  rules::set_first_moment(c, step);
  rules::set_second_moment(c, step);
  if (step.slow) {
    c.m_scale = 1.0 / c.m_correction;
    set_slow_average(c, step, step.steps + 1);
    c.update_scale = step.gate;
  } else {
    c.update_scale = step.gate / c.m_correction;
  }
  c.step = step.lr * c.update_scale;
}

inline RulePart adam() {
  RulePart part;
  part.name = "adam";
  part.options = {
      {"beta_slow", kAboveZero, kBelowOne, "None, or a number in (0, 1)", 0,
       PartOption::If::none_is_zero},
      {"alpha", 0, kHuge, "a finite number >= 0", 5, PartOption::If::required},
      {"slow_warmup", 0, 1e15, "None, or a number of steps >= 0", 0, PartOption::If::none_is_zero}};
  part.first = part.second = part.slow = true;
  part.coefficients = set_adam;
  return part;
}

} // namespace cosmic::parts

#endif
