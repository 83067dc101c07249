// Rule `tiger`: the update of the optimizer Tiger, release 2.2, as its formulas have it, for
// runs that are to be reproduced. Gate `tiger_literal` measures what it needs of the whole tensor,
// and scales it (gates/tiger_literal.h).
//   m <- beta1 m + (1 - beta1) g        v <- beta2 v + (1 - beta2) g^2, neither corrected; by rows
//                                       and columns v is what those make of it after this step
//   P = (sqrt(v) + eps)^-alpha, alpha 0, 1/2 or 1
//   u = ((1 - b) m / (|m| + tau) + b m / (rms(m) + eps)) P        p <- decay p - step u
// or with the sign of m in the place of the soft one. The soft sign is of the momentum itself, so
// that the update depends on the scale of the loss: rule `softsign` does not.
#pragma once

#if defined(COSMIC_TARGET) // the arithmetic, on lanes

#include "rules/slots.h"

namespace cosmic::COSMIC_TARGET {

// What becomes of the moments of a coordinate; the gate's probe asks, too.
template <class Real> struct TigerDirection {
  using V = Lanes<Real>;
  V of_sign, of_momentum, tau, hard, eps, of_one, of_root, of_base, zero, one;

  COSMIC_METHOD explicit TigerDirection(const Coefficients &c)
      : of_sign(V::splat((Real)c.of_rule[0])),
        of_momentum(V::splat((Real)(c.of_rule[1] * c.of_gate[0]))),
        tau(V::splat((Real)c.of_rule[2])), hard(V::splat((Real)c.of_rule[3])),
        eps(V::splat((Real)c.eps)), of_one(V::splat(c.of_rule[4] == 0 ? Real(1) : Real(0))),
        of_root(V::splat(c.of_rule[4] == 0.5 ? Real(1) : Real(0))),
        of_base(V::splat(c.of_rule[4] == 1 ? Real(1) : Real(0))), zero(V::splat(Real(0))),
        one(V::splat(Real(1))) {}

  // What the preconditioner divides by, with `base` the root of v and eps.
  COSMIC_METHOD V divisor(V base) const { return of_one + of_root * sqrt(base) + of_base * base; }
  COSMIC_METHOD V numerator(V m) const {
    const V sign = where_greater(m, zero, one, where_greater(zero, m, zero - one, m));
    return of_sign * where_greater(hard, zero, sign, m / (abs(m) + tau)) + of_momentum * m;
  }
};

template <class Real, bool /*kWithSlow*/> struct Tiger {
  static constexpr bool kDecaysM = true;
  static constexpr bool kFirst = true, kSecond = true, kSlow = false, kShares = false;
  static constexpr bool kMomentsApart = false;
  using V = Lanes<Real>;
  TigerDirection<Real> direction;
  V gradient1, gradient2, decay, step;

  COSMIC_METHOD explicit Tiger(const Coefficients &c)
      : direction(c), gradient1(V::splat((Real)c.gradient1)),
        gradient2(V::splat((Real)c.gradient2)), decay(V::splat((Real)c.decay)),
        step(V::splat((Real)c.step)) {}

  COSMIC_METHOD V update(V p, V g, Slots<V> &s, V &u) const {
    s.v = s.v + gradient2 * g * g;
    s.root = sqrt(s.v);
    s.denominator = s.root + direction.eps;
    s.m = s.m + gradient1 * g;
    u = direction.numerator(s.m) / direction.divisor(s.denominator);
    return decay * p - step * u;
  }
};

} // namespace cosmic::COSMIC_TARGET

#else // what it says of itself

#include "rules/softsign.h"

namespace cosmic::parts {

namespace tiger_options {
// behind those of rule softsign
enum { kMode = softsign_options::kSchedule + 1, kAlpha };
enum { kSoftSign, kSign };
inline constexpr const char *kModes[] = {"softsign", "sign", nullptr};
} // namespace tiger_options

inline void set_tiger(Coefficients &c, const double * /*numbers*/, const RuleStep &step) {
  using namespace tiger_options;
  rules::set_first_moment(c, step);
  rules::set_second_moment(c, step);
  c.m_correction = c.m_correction_before = c.v_scale = c.v_scale_before = 1;
  const double blend = blend_at(step.options, step.steps + 1);
  c.of_rule[0] = 1.0 - blend;
  c.of_rule[1] = blend;
  c.of_rule[2] = step.options[softsign_options::kKappa];
  c.of_rule[3] = step.options[kMode] == kSign ? 1 : 0;
  c.of_rule[4] = step.options[kAlpha];
  c.update_scale = step.gate;
  c.step = step.lr * c.update_scale;
}

inline RulePart tiger() {
  using namespace tiger_options;
  using Form = PartOption::Form;
  constexpr auto kAbsent = PartOption::If::absent;
  RulePart part;
  part.name = "tiger";
  part.variant = "tiger";
  part.options = softsign().options;
  part.options.push_back(
      {"sign_mode", 0, 1, "'softsign' or 'sign'", kSoftSign, kAbsent, Form::choice, kModes});
  part.options.push_back({"precond_alpha", 0, 1, "0, 0.5 or 1", 1, kAbsent, Form::halves});
  part.first = part.second = part.second_ahead = true;
  part.gate = "tiger_literal";
  part.coefficients = set_tiger;
  for (const char *m : {"fp32", "bf16"})
    for (const char *v : {"fp32", "factored"}) part.goes_with.emplace_back(m, v);
  part.goes_with.emplace_back("bf16", "bf16");
  part.goes_with.emplace_back("fp64", "fp64");
  return part;
}

} // namespace cosmic::parts

#endif
