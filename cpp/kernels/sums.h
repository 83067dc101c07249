// Sums over a run of blocks: kept a lane apart, carried from run to run, non-finite gradients
// noticed.
#pragma once

#include "codecs/context.h"
#include "kernels/kernels.h"

namespace cosmic::COSMIC_TARGET {

// Once a run: calls, which keep code small.
template <class Real> COSMIC_CALL void widen_lanes(const Real *lanes, double *to) {
  for (int k = 0; k < kLanes; ++k) to[k] = lanes[k];
}
template <class Real> COSMIC_CALL void narrow_lanes(const double *from, Real *lanes) {
  for (int k = 0; k < kLanes; ++k) lanes[k] = (Real)from[k];
}

// Lane sums of a run that is inlined, loaded from and stored to where the work item carries them.
// `kProbed` of the probe's, and the codec's where it adds up.
template <class Real, int kProbed = 0, bool kEncoded = false> struct RunningSums {
  Lanes<Real> abs_gradient, square_update;
  Lanes<Real> probed[kProbed > 0 ? kProbed : 1];
  Lanes<Real> encoded;

  COSMIC_METHOD explicit RunningSums(const LaneSums &from)
      : abs_gradient(load(from.abs_gradient)), square_update(load(from.square_update)) {
    for (int k = 0; k < kProbed; ++k) probed[k] = load(from.probed[k]);
    if constexpr (kEncoded) encoded = load(from.encoded);
  }

  COSMIC_METHOD void store(LaneSums *to) const {
    keep(abs_gradient, to->abs_gradient);
    keep(square_update, to->square_update);
    for (int k = 0; k < kProbed; ++k) keep(probed[k], to->probed[k]);
    if constexpr (kEncoded) keep(encoded, to->encoded);
    if constexpr (kProbed > 0 || kEncoded) to->more = true;
  }

private:
  COSMIC_METHOD static void keep(Lanes<Real> sum, double *to) {
    alignas(64) Real lanes[kLanes];
    sum.store(lanes);
    widen_lanes(lanes, to);
  }
  COSMIC_METHOD static Lanes<Real> load(const double *from) {
    alignas(64) Real lanes[kLanes];
    narrow_lanes(from, lanes);
    return Lanes<Real>::load(lanes);
  }
};

// Lane sums of a run by parts, which pass from one to the next in memory. What is not asked for is
// never read.
template <class Real> struct LanesInL1 {
  alignas(64) Real abs_gradient[kLanes];
  alignas(64) Real square_update[kLanes];
  alignas(64) Real square_param[kLanes];
  alignas(64) Real encoded[kLanes];
  alignas(64) Real probed[kProbeSums][kLanes];
};

template <class Real> COSMIC_CALL int64_t count_nonfinite(const Real *g, int64_t count) {
  int64_t found = 0;
  for (int64_t k = 0; k < count; ++k) found += !__builtin_isfinite(g[k]);
  return found;
}

// A sum of |g| that is not finite is the sign to count; it costs nothing while all is well.
template <class Real>
COSMIC_CALL void note_nonfinite(const Real *g, int64_t count, LaneSums *sums) {
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
