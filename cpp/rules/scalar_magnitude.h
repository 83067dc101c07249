// The scalar of tier 1: Adam's ratio for a whole tensor. With x the mean of |g|,
//   a <- beta1 a + (1 - beta1) x        b <- beta2 b + (1 - beta2) x^2
//   magnitude = min(1, a_hat / (sqrt(b_hat) + eps)), hats for bias correction.
// The magnitude of the steps before this one scales this step's sign; the first has 1.
#pragma once

#include <algorithm>
#include <cmath>

namespace cosmic::scalar_magnitude {

enum State { kAbs, kSquare, kStateSize };

inline double value(const double *state, double correction1, double correction2, double eps) {
  if (correction1 <= 0) return 1.0; // nothing seen yet
  const double a = state[kAbs] / correction1, b = state[kSquare] / correction2;
  return std::min(1.0, a / (std::sqrt(b) + eps));
}

// False if the step's mean is not finite: one bad element must not stop the whole tensor, so such
// a step leaves the averages, and the count that corrects their bias, as they are.
inline bool observe(double *state, double mean_abs_gradient, double beta1, double beta2) {
  const double x = mean_abs_gradient;
  if (!std::isfinite(x)) return false;
  state[kAbs] = beta1 * state[kAbs] + (1.0 - beta1) * x;
  state[kSquare] = beta2 * state[kSquare] + (1.0 - beta2) * x * x;
  return true;
}

// From a second moment, by the mean of the roots of its elements: as if the mean of |g| had always
// been what that says of it.
inline void start(double *state, double mean_root, double correction1, double correction2) {
  const double a = correction2 > 0 ? mean_root / std::sqrt(correction2) : 0.0;
  state[kAbs] = a * correction1;
  state[kSquare] = a * a * correction2;
}

} // namespace cosmic::scalar_magnitude
