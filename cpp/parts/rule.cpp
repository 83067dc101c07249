#include "parts/rule.h"

#include <cmath>

namespace cosmic::rules {

double integer_power(double base, int64_t exponent) {
  double out = 1.0;
  for (; exponent > 0; exponent >>= 1, base *= base)
    if (exponent & 1) out *= base;
  return out;
}

double raised_cosine(double x) {
  // half of 1 + sin(z), whose series has no more than rounding left after z^23
  const double z = 3.14159265358979323846 * (x - 0.5);
  double sine = 1.0;
  for (int k = 22; k > 0; k -= 2) sine = 1.0 - z * z * sine / (k * (k + 1));
  return 0.5 + 0.5 * z * sine;
}

double sign_scale(double beta1) { return std::sqrt((1.0 - beta1) / (1.0 + beta1)); }

void set_first_moment(Coefficients &c, const RuleStep &step) {
  const double beta1 = step.group.beta1;
  const int64_t t = step.steps + 1 - step.first_start;
  c.beta1 = beta1;
  c.gradient1 = step.sign * (1.0 - beta1);
  c.m_correction = 1.0 - integer_power(beta1, t);
  if (t > 1) c.m_correction_before = 1.0 - integer_power(beta1, t - 1);
}

void set_second_moment(Coefficients &c, const RuleStep &step) {
  const double beta2 = step.group.beta2;
  const int64_t t = step.steps + 1;
  const double correction2 = 1.0 - integer_power(beta2, t);
  c.beta2 = beta2;
  c.gradient2 = 1.0 - beta2;
  c.v_scale = 1.0 / std::sqrt(correction2);
  // the first step has no state in update units: any scale will do
  c.v_scale_before = t > 1 ? 1.0 / std::sqrt(1.0 - integer_power(beta2, t - 1)) : 1.0;
  c.eps = step.group.eps;
}

} // namespace cosmic::rules
