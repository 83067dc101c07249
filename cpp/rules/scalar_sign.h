// Rule `scalar_sign`, tier 1 without a second moment: the sign of the gradient (rules/sign.h) times
// Adam's ratio for the whole tensor. With x the mean of |g|,
//   a <- beta1 a + (1 - beta1) x        b <- beta2 b + (1 - beta2) x^2
//   magnitude = min(1, a_hat / (sqrt(b_hat) + eps)), hats for bias correction.
// The magnitude of the steps before this one scales this step's sign; the first has 1.
#pragma once

#include "rules/sign.h"

#if !defined(COSMIC_TARGET) // it has no arithmetic of its own

#include <algorithm>
#include <cmath>

namespace cosmic::parts {

namespace scalar_magnitude {
enum { kAbs, kSquare };
} // namespace scalar_magnitude

inline void set_scalar_sign(Coefficients &c, const double *numbers, const RuleStep &step) {
  const Group &group = step.group;
  const double correction1 = 1.0 - rules::integer_power(group.beta1, step.steps);
  const double correction2 = 1.0 - rules::integer_power(group.beta2, step.steps);
  double magnitude = 1.0;
  if (correction1 > 0) { // else nothing has been seen yet
    const double a = numbers[scalar_magnitude::kAbs] / correction1;
    const double b = numbers[scalar_magnitude::kSquare] / correction2;
    magnitude = std::min(1.0, a / (std::sqrt(b) + group.eps));
  }
  set_sign_of(c, magnitude, step);
}

// One bad element must not stop the whole tensor: a step whose mean is not finite leaves the
// averages, and the count that corrects their bias, as they are.
inline bool observe_scalar_sign(double *numbers, const Sums &sums, const RuleStep &step) {
  const double x = sums.mean_abs_gradient, beta1 = step.group.beta1, beta2 = step.group.beta2;
  if (!std::isfinite(x)) return false;
  double &a = numbers[scalar_magnitude::kAbs], &b = numbers[scalar_magnitude::kSquare];
  a = beta1 * a + (1.0 - beta1) * x;
  b = beta2 * b + (1.0 - beta2) * x * x;
  return true;
}

// As if the mean of |g| had always been what the second moment says of it.
inline void start_scalar_sign(double *numbers, double mean_root, const RuleStep &step) {
  const double correction1 = 1.0 - rules::integer_power(step.group.beta1, step.steps);
  const double correction2 = 1.0 - rules::integer_power(step.group.beta2, step.steps);
  const double a = correction2 > 0 ? mean_root / std::sqrt(correction2) : 0.0;
  numbers[scalar_magnitude::kAbs] = a * correction1;
  numbers[scalar_magnitude::kSquare] = a * a * correction2;
}

inline RulePart scalar_sign() {
  RulePart part;
  part.name = "scalar_sign";
  part.tier = 1;
  part.arithmetic = "sign";
  part.numbers = {"magnitude", {{"average of mean |g|"}, {"average of its square"}}};
  part.coefficients = set_scalar_sign;
  part.observe = observe_scalar_sign;
  part.start = start_scalar_sign;
  return part;
}

} // namespace cosmic::parts

#endif
