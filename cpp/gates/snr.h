// Gate `snr`: a factor in [c_min, 1] on a tensor's update from how steady its gradient has been.
// With x the mean of |g| over the tensor, r = max(1 - kDecay, 1/t):
//   d = min(x, 10 mean) - mean      mean <- mean + r d      variance <- (1 - r) (variance + r d^2)
//   factor = mean^2 / (mean^2 + variance) * min(1, (mean' + 3 sqrt(variance')) / x)
// mean' and variance' are the values before this step, so that a jump is measured against the
// running ones. One outlier counts for at most ten means, or its square would be remembered for
// hundreds of steps. The factor acts at the next step; it is 1 during the warm-up.
// The running variance is West's (CACM 22(9), 1979), exponentially weighted.
#pragma once

#include <algorithm>
#include <cmath>

namespace cosmic::snr {

constexpr double kDecay = 0.98; // a memory of about 50 steps
constexpr double kWarmUp = 20;  // steps
constexpr double kJump = 3;     // standard deviations
constexpr double kOutlier = 10; // means
enum State { kCount, kMean, kVariance, kFactor, kStateSize };

inline double factor(const double *state) { return state[kCount] > 0 ? state[kFactor] : 1.0; }

inline void observe(double *state, double mean_abs_gradient, double c_min) {
  const double x = mean_abs_gradient;
  if (!std::isfinite(x)) { // an overflow or a non-finite gradient: as untrustworthy as it gets
    if (state[kCount] >= kWarmUp) state[kFactor] = c_min;
    return;
  }
  const double ceiling = state[kMean] + kJump * std::sqrt(state[kVariance]);
  const double jump = state[kCount] > 0 && x > ceiling ? ceiling / x : 1.0;
  state[kCount] += 1;
  const double rate = std::max(1.0 - kDecay, 1.0 / state[kCount]);
  // a mean of zero has no scale to hold x against
  const double seen = state[kMean] > 0 ? std::min(x, kOutlier * state[kMean]) : x;
  const double d = seen - state[kMean];
  state[kMean] += rate * d;
  state[kVariance] = (1.0 - rate) * (state[kVariance] + rate * d * d);
  const double signal = state[kMean] * state[kMean], all = signal + state[kVariance];
  const double snr = all > 0 ? signal / all : 1.0;
  state[kFactor] = state[kCount] > kWarmUp ? std::clamp(snr * jump, c_min, 1.0) : 1.0;
}

} // namespace cosmic::snr
