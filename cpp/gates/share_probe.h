// Probe `share`: the sum of w^2, of which gate `agar` takes the mean (gates/trust_focus.h).
#pragma once

#include "gates/no_probe.h"

namespace cosmic::COSMIC_TARGET {

template <class Real> struct Share {
  using Look = NoLook;
  static constexpr int kFirstSum = 0, kSums = 1;
  static constexpr bool kMeasures = false, kLooksTwice = false, kSelects = false;
  using V = Lanes<Real>;

  COSMIC_METHOD explicit Share(const Coefficients & /*c*/) {}
  COSMIC_METHOD void look(const Slots<V> &slots, const V & /*gradient*/, V *terms) const {
    const V zero = V::splat(Real(0)); // also for a coordinate that is spoiled, whose share is a NaN
    terms[0] = where_greater(slots.signal_share, zero, slots.signal_share, zero);
  }
};

} // namespace cosmic::COSMIC_TARGET
