// Sums over a run of blocks: kept a lane apart, carried from run to run, non-finite gradients
// noticed.
#pragma once

#include "isa/lanes.h"
#include "kernels/kernels.h"

namespace cosmic::COSMIC_TARGET {

// Lane sums of a run, loaded from and stored to where the work item carries them.
template <class Real> struct RunningSums {
  Lanes<Real> abs_gradient, square_update;

  COSMIC_METHOD explicit RunningSums(const LaneSums &from)
      : abs_gradient(load(from.abs_gradient)), square_update(load(from.square_update)) {}

  COSMIC_METHOD void store(LaneSums *to) const {
    alignas(64) Real lanes[kLanes];
    abs_gradient.store(lanes);
    for (int k = 0; k < kLanes; ++k) to->abs_gradient[k] = lanes[k];
    square_update.store(lanes);
    for (int k = 0; k < kLanes; ++k) to->square_update[k] = lanes[k];
  }

private:
  COSMIC_METHOD static Lanes<Real> load(const double *from) {
    alignas(64) Real lanes[kLanes];
    for (int k = 0; k < kLanes; ++k) lanes[k] = (Real)from[k];
    return Lanes<Real>::load(lanes);
  }
};

// Lanes at and past `count` become zero, so that padding cannot enter a sum.
template <class Real> COSMIC_INLINE Lanes<Real> zero_past(Lanes<Real> x, int64_t count, int group) {
  alignas(64) Real lanes[kLanes];
  x.store(lanes);
  for (int k = 0; k < kLanes; ++k)
    if (group * kLanes + k >= count) lanes[k] = 0;
  return Lanes<Real>::load(lanes);
}

template <class Real> COSMIC_INLINE int64_t count_nonfinite(const Real *g, int64_t count) {
  int64_t found = 0;
  for (int64_t k = 0; k < count; ++k) found += !__builtin_isfinite(g[k]);
  return found;
}

// A sum of |g| that is not finite is the sign to count; it costs nothing while all is well.
template <class Real>
COSMIC_INLINE void note_nonfinite(const Real *g, int64_t count, LaneSums *sums) {
  bool finite = true;
  for (int k = 0; k < kLanes; ++k) finite &= (bool)__builtin_isfinite(sums->abs_gradient[k]);
  if (!finite) sums->nonfinite += count_nonfinite(g, count);
}

template <class Real> void inspect_run(const Real *g, int64_t count, LaneSums *to) {
  RunningSums<Real> sums(*to);
  for (int64_t k = 0; k < count; k += kLanes)
    sums.abs_gradient = sums.abs_gradient + abs(Lanes<Real>::load(g + k));
  sums.store(to);
  note_nonfinite(g, count, to);
}

} // namespace cosmic::COSMIC_TARGET
