// Probe `alignment`: (m, g) and (g, g), from which `costate` takes the share of the gradient in the
// first moment. What is not finite, or whose product might not be, does not count.
#pragma once

#include "gates/no_probe.h"

namespace cosmic::COSMIC_TARGET {

template <class Real> struct Alignment {
  using Look = NoLook;
  static constexpr int kFirstSum = 0, kSums = 2;
  static constexpr bool kMeasures = true, kLooksTwice = false, kSelects = false;
  using V = Lanes<Real>;

  COSMIC_METHOD explicit Alignment(const Coefficients & /*c*/) {}
  COSMIC_METHOD void look(const Slots<V> &slots, const V &gradient, V *terms) const {
    const V zero = V::splat(Real(0)), most = V::splat(Real(0x1p60f));
    const V g = where_greater(most, abs(gradient), gradient, zero);
    terms[0] = where_greater(most, abs(slots.m), slots.m, zero) * g;
    terms[1] = g * g;
  }
};

} // namespace cosmic::COSMIC_TARGET
