// Rule `muon`: orthogonalized momentum of a whole matrix (Jordan et al., "Muon", 2024), for hidden
// matrices.
//   m <- beta m + (1 - beta) g        w = beta m + (1 - beta) g (Nesterov), or m
//   u = scale orth(w)                 p <- decay p - step u
// orth(w) is w's nearest matrix with orthonormal rows or columns, by Newton-Schulz iterations
// (matmul/orthogonalize.h). The scale 0.2 sqrt(max(rows, columns)) gives u the root mean square of
// Adam's update, so that one learning rate serves (Liu et al., arXiv 2502.16982).
// The pass over blocks ends with w, in the place of the parameter; plan/matrix_step.h does the
// rest.
#pragma once

#if defined(COSMIC_TARGET) // the arithmetic, on lanes

#include "rules/slots.h"

namespace cosmic::COSMIC_TARGET {

template <class Real, bool /*kWithSlow*/> struct Muon {
  static constexpr bool kDecaysM = true;
  static constexpr bool kFirst = true, kSecond = false, kSlow = false, kShares = false;
  static constexpr bool kMomentsApart = false;
  using V = Lanes<Real>;
  V gradient1, of_moment, of_gradient;

  COSMIC_METHOD explicit Muon(const Coefficients &c)
      : gradient1(V::splat((Real)c.gradient1)), of_moment(V::splat((Real)c.of_rule[0])),
        of_gradient(V::splat((Real)c.of_rule[1])) {}

  COSMIC_METHOD V update(V /*p*/, V g, Slots<V> &s, V &u) const {
    s.m = s.m + gradient1 * g;
    u = of_moment * s.m + of_gradient * g;
    return u;
  }
};

} // namespace cosmic::COSMIC_TARGET

#else // what it says of itself

#include "parts/rule.h"

namespace cosmic::parts {

namespace muon_options {
enum { kMomentum, kNesterov, kSteps, kA, kB, kC, kAdjust, kEvery, kBlocks };
inline constexpr const char *kAdjustments[] = {"original", "match_rms_adamw", nullptr};
} // namespace muon_options

inline void set_descent_of_matrix(Coefficients &c, const RuleStep &step) {
  c.update_scale = step.gate;
  // who takes its turn takes the steps between, too
  const double lr = step.lr * step.options[muon_options::kEvery];
  c.decay = 1.0 - lr * step.group.weight_decay;
  c.step = lr * c.update_scale;
}

inline void set_muon(Coefficients &c, const double * /*numbers*/, const RuleStep &step) {
  using namespace muon_options;
  const double beta = step.options[kMomentum];
  const bool nesterov = step.options[kNesterov] != 0;
  c.beta1 = beta;
  c.gradient1 = step.sign * (1.0 - beta);
  c.of_rule[0] = nesterov ? beta : 1.0;
  c.of_rule[1] = nesterov ? c.gradient1 : 0.0;
  set_descent_of_matrix(c, step);
}

inline MatrixHow muon_matrix(const Group &group, const double *options) {
  using namespace muon_options;
  MatrixHow how;
  const int steps = static_cast<int>(options[kSteps]);
  const bool given = options[kA] != 0 || options[kB] != 0 || options[kC] != 0;
  how.polynomial =
      given ? repeated(steps, options[kA], options[kB], options[kC]) : polar_express(steps);
  how.eps = group.eps;
  how.match_rms = options[kAdjust] != 0;
  how.every = static_cast<int>(options[kEvery]);
  how.blocks = static_cast<int>(options[kBlocks]);
  return how;
}

inline RulePart muon() {
  using Form = PartOption::Form;
  constexpr auto kAbsent = PartOption::If::absent, kNone = PartOption::If::absent_or_none;
  constexpr const char *kExpected = "three finite numbers";
  RulePart part;
  part.name = "muon";
  part.variant = "muon";
  part.options = {{"momentum", 0, kBelowOne, "a number in [0, 1)", 0.95},
                  {"nesterov", 0, 1, "True or False", 1, kAbsent, Form::truth},
                  {"ns_steps", 1, kMostIterations, "an int from 1 to 99", 3, kAbsent, Form::whole},
                  {"ns_coefficients", -kHuge, kHuge, kExpected, 0, kNone, Form::first},
                  {"ns_coefficients", -kHuge, kHuge, kExpected, 0, kNone, Form::second},
                  {"ns_coefficients", -kHuge, kHuge, kExpected, 0, kNone, Form::third},
                  {"adjust_lr_fn", 0, 1, "None, 'original' or 'match_rms_adamw'", 1, kNone,
                   Form::choice, muon_options::kAdjustments},
                  {"matrix_every", 1, 1e6, "an int from 1 to 1000000", 1, kAbsent, Form::whole},
                  {"matrix_blocks", 1, 1e6, "an int from 1 to 1000000", 1, kAbsent, Form::whole}};
  part.first = true;
  part.coefficients = set_muon;
  part.matrix = muon_matrix;
  for (const char *codec : {"fp32", "bf16", "m8", "m4", "m2", "m1"})
    part.goes_with.emplace_back(codec, "none");
  return part;
}

} // namespace cosmic::parts

#endif
