// Gate `agar`: how far a coordinate's gradients agree decides how far it moves. With w^2 a
// coordinate's share of signal (rules/belief.h) and a its mean over the tensor, at the step before:
//   trust = c_min + (1 - c_min) a        focus = clip(w^2 / a, rel_floor, 1)
//   u = trust^robustness focus w
// This is the per-coordinate gate of CASMO's redesign (AGAR, its repository's release 0.4), with
// the mean of the step before, so that a step stays one pass over memory.
#pragma once

#include <algorithm>
#include <cmath>

namespace cosmic::trust_focus {

enum State { kMean, kStateSize };

// Of gradients that have been seen once, exactly: m_hat^2 and s_hat are both g^2.
constexpr double kFirstMean = 0.5;

// A null state, as where moments are converted outside a step, has seen nothing.
inline double mean(const double *state) {
  return state && state[kMean] > 0 ? state[kMean] : kFirstMean;
}

inline double factor(const double *state, double c_min, double robustness) {
  return std::pow(c_min + (1.0 - c_min) * mean(state), robustness);
}

inline void observe(double *state, double mean_share) {
  if (std::isfinite(mean_share)) state[kMean] = mean_share;
}

} // namespace cosmic::trust_focus
