// Rule `softsign`: Adam's quotient, of which a soft sign takes a part.
//   m <- beta1 m + (1 - beta1) g        v <- beta2 v + (1 - beta2) g^2
//   w = m_hat / (sqrt(v_hat) + eps)
//   u = (1 - b) w / (|w| + kappa) + b w        p <- decay p - step u
// Both moments are Adam's, so that a run may change from one rule to the other. Where w is the same
// for a scaled loss, so is u: kappa is in units of w, not of the gradient. b = 1 is Adam, b = 0
// with kappa -> 0 the sign of w. Over the tensor's own steps b may go from `blend` to `blend_to`.
#pragma once

#if defined(COSMIC_TARGET) // the arithmetic, on lanes

#include "rules/slots.h"

namespace cosmic::COSMIC_TARGET {

template <class Real, bool /*kWithSlow*/> struct SoftSign {
  static constexpr bool kDecaysM = true;
  static constexpr bool kFirst = true, kSecond = true, kSlow = false, kShares = false;
  static constexpr bool kMomentsApart = true;
  using V = Lanes<Real>;
  V gradient1, gradient2, m_scale, v_scale, eps, decay, step;
  V of_sign, of_quotient, kappa;

  COSMIC_METHOD explicit SoftSign(const Coefficients &c)
      : gradient1(V::splat((Real)c.gradient1)), gradient2(V::splat((Real)c.gradient2)),
        m_scale(V::splat((Real)c.m_scale)), v_scale(V::splat((Real)c.v_scale)),
        eps(V::splat((Real)c.eps)), decay(V::splat((Real)c.decay)), step(V::splat((Real)c.step)),
        of_sign(V::splat((Real)c.of_rule[0])), of_quotient(V::splat((Real)c.of_rule[1])),
        kappa(V::splat((Real)c.of_rule[2])) {}

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
    const V w = m_scale * s.m / s.denominator;
    u = of_sign * (w / (abs(w) + kappa)) + of_quotient * w;
    return decay * p - step * u;
  }
  // With numbers for the registers of one half of a step.
  COSMIC_METHOD SoftSign held() const {
    SoftSign out = *this;
    out.gradient1 = COSMIC_TARGET::held(gradient1);
    out.gradient2 = COSMIC_TARGET::held(gradient2);
    out.m_scale = COSMIC_TARGET::held(m_scale);
    out.v_scale = COSMIC_TARGET::held(v_scale);
    out.eps = COSMIC_TARGET::held(eps);
    out.decay = COSMIC_TARGET::held(decay);
    out.step = COSMIC_TARGET::held(step);
    out.of_sign = COSMIC_TARGET::held(of_sign);
    out.of_quotient = COSMIC_TARGET::held(of_quotient);
    out.kappa = COSMIC_TARGET::held(kappa);
    return out;
  }
};

} // namespace cosmic::COSMIC_TARGET

#else // what it says of itself

#include <algorithm>

#include "parts/rule.h"

namespace cosmic::parts {

namespace softsign_options {
enum { kBlend, kKappa, kBlendTo, kBlendSteps, kSchedule };
enum { kLinear, kCosine };
inline constexpr const char *kSchedules[] = {"linear", "cosine", nullptr};
constexpr double kConstant = -1; // blend_to is None
} // namespace softsign_options

// The weight of Adam's quotient at the tensor's step number t, from 1.
inline double blend_at(const double *options, int64_t t) {
  using namespace softsign_options;
  const double from = options[kBlend], to = options[kBlendTo], steps = options[kBlendSteps];
  if (to == kConstant || steps == 0) return from;
  if (static_cast<double>(t) >= steps) return to;
  const double share = static_cast<double>(t) / steps;
  const double weight = options[kSchedule] == kCosine ? rules::raised_cosine(share) : share;
  return (1.0 - weight) * from + weight * to;
}

inline void set_softsign(Coefficients &c, const double * /*numbers*/, const RuleStep &step) {
  rules::set_first_moment(c, step);
  rules::set_second_moment(c, step);
  const double blend = blend_at(step.options, step.steps + 1);
  c.m_scale = 1.0 / c.m_correction;
  c.of_rule[0] = 1.0 - blend;
  c.of_rule[1] = blend;
  c.of_rule[2] = step.options[softsign_options::kKappa];
  c.update_scale = step.gate;
  c.step = step.lr * c.update_scale;
}

inline RulePart softsign() {
  using Form = PartOption::Form;
  constexpr auto kAbsent = PartOption::If::absent;
  PartOption to{"blend_to",
                0,
                1,
                "None, or a number in [0, 1]",
                softsign_options::kConstant,
                PartOption::If::absent_or_none};
  to.none = softsign_options::kConstant;
  RulePart part;
  part.name = "softsign";
  part.variant = "softsign";
  // Half of a sign is reached at kappa. By default that is a little more than what w has where
  // gradients are noise, 0.23: of 0.1, 0.3 and 1 it trained best on two tasks of three, near
  // AdamW's rate. float32 has the least and the greatest.
  part.options = {{"blend", 0, 1, "a number in [0, 1]", 0.2},
                  {"kappa", 1e-30, 1e30, "a number from 1e-30 to 1e30", 0.3},
                  to,
                  {"blend_steps", 0, 1e15, "an int >= 0", 0, kAbsent, Form::whole},
                  {"blend_schedule", 0, 1, "'linear' or 'cosine'", softsign_options::kLinear,
                   kAbsent, Form::choice, softsign_options::kSchedules}};
  part.first = part.second = true;
  part.codecs_of = "adam";
  part.coefficients = set_softsign;
  return part;
}

} // namespace cosmic::parts

#endif
