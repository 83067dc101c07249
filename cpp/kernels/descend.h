// The last part of a step whose direction is there already: p <- decay p - step u.
#pragma once

#include "kernels/sums.h"

namespace cosmic::COSMIC_TARGET {

// Whole blocks; padding of `direction` is zero, and of the parameter, too.
inline void descend_run(float *param, const float *direction, int64_t count, const Coefficients &c,
                        bool square_param, LaneSums *to) {
  const F32 decay = F32::splat((float)c.decay), step = F32::splat((float)c.step);
  RunningSums<float> sums(*to);
  alignas(64) float lanes[kLanes];
  narrow_lanes(to->square_param, lanes);
  F32 squares = F32::load(lanes);
  for (int64_t k = 0; k < count; k += kLanes) {
    const F32 u = F32::load(direction + k);
    const F32 p = decay * F32::load(param + k) - step * u;
    p.store(param + k);
    sums.square_update = sums.square_update + u * u;
    squares = squares + p * p;
  }
  sums.store(to);
  if (!square_param) return;
  squares.store(lanes);
  widen_lanes(lanes, to->square_param);
  to->more = true;
}

} // namespace cosmic::COSMIC_TARGET
