// Gate `snr`: a factor in [c_min, 1] on a tensor's update from how steady its gradient has been.
// With x the mean of |g| over the tensor, r = max(1 - kDecay, 1/t):
//   d = min(x, 10 mean) - mean      mean <- mean + r d      variance <- (1 - r) (variance + r d^2)
//   factor = mean^2 / (mean^2 + variance) * min(1, (mean' + 3 sqrt(variance')) / x)
// mean' and variance' are the values before this step, so that a jump is measured against the
// running ones. One outlier counts for at most ten means, or its square would be remembered for
// hundreds of steps. The factor acts at the next step; it is 1 during the warm-up.
// The running variance is West's (CACM 22(9), 1979), exponentially weighted.
#pragma once

#if !defined(COSMIC_TARGET) // it has no arithmetic of its own

#include <algorithm>
#include <cmath>

#include "parts/gate.h"

namespace cosmic::parts {

namespace snr_gate {

constexpr double kDecay = 0.98; // a memory of about 50 steps
constexpr double kWarmUp = 20;  // steps
constexpr double kJump = 3;     // standard deviations
constexpr double kOutlier = 10; // means
enum { kCMin };                 // options
enum { kCount, kMean, kVariance, kFactor };

inline double factor(const double *numbers, const GateStep & /*step*/) {
  return numbers[kCount] > 0 ? numbers[kFactor] : 1.0;
}

inline void observe(double *numbers, const Sums &sums, const GateStep &step) {
  const double x = sums.mean_abs_gradient, c_min = step.options[kCMin];
  if (!std::isfinite(x)) { // an overflow or a non-finite gradient: as untrustworthy as it gets
    if (numbers[kCount] >= kWarmUp) numbers[kFactor] = c_min;
    return;
  }
  const double ceiling = numbers[kMean] + kJump * std::sqrt(numbers[kVariance]);
  const double jump = numbers[kCount] > 0 && x > ceiling ? ceiling / x : 1.0;
  numbers[kCount] += 1;
  const double rate = std::max(1.0 - kDecay, 1.0 / numbers[kCount]);
  // a mean of zero has no scale to hold x against
  const double seen = numbers[kMean] > 0 ? std::min(x, kOutlier * numbers[kMean]) : x;
  const double d = seen - numbers[kMean];
  numbers[kMean] += rate * d;
  numbers[kVariance] = (1.0 - rate) * (numbers[kVariance] + rate * d * d);
  const double signal = numbers[kMean] * numbers[kMean], all = signal + numbers[kVariance];
  const double snr = all > 0 ? signal / all : 1.0;
  numbers[kFactor] = numbers[kCount] > kWarmUp ? std::clamp(snr * jump, c_min, 1.0) : 1.0;
}

} // namespace snr_gate

inline GatePart snr() {
  GatePart part;
  part.name = "snr";
  part.options = {gate_c_min()};
  part.numbers = {"gate_snr", {{"count"}, {"mean"}, {"variance"}, {"factor"}}};
  part.factor = snr_gate::factor;
  part.observe = snr_gate::observe;
  return part;
}

} // namespace cosmic::parts

#endif
