// A probe adds up, over a tensor, what a gate or a codec must know of it: in the step, for the next
// one, or in a measuring pass before the step. Most steps have this one, which looks at nothing.
#pragma once

#include "rules/slots.h"

namespace cosmic::COSMIC_TARGET {

// What a probe keeps of a block: most keep nothing.
struct NoLook {
  template <class Probe> COSMIC_METHOD explicit NoLook(const Probe & /*probe*/) {}
  // `inside` makes zeros of what lies past the tensor's end.
  template <class V, class Inside>
  COSMIC_METHOD void see(const Slots<V> & /*slots*/, Inside /*inside*/) {}
  COSMIC_METHOD void close(BlockLook * /*looks*/, int64_t /*block*/) const {}
};

template <class Real> struct NoProbe {
  using Look = NoLook;
  static constexpr int kFirstSum = 0, kSums = 0; // sums [first, kSums), at most kSumsOfPart
  static constexpr bool kMeasures = false;       // whether it has measuring passes
  // Measuring passes look in two ways: FirstLook where the coefficients say so, SecondLook.
  static constexpr bool kLooksTwice = false;
  static constexpr bool kSelects = false; // whether it looks at some blocks only
  static constexpr bool kSeesV = false;   // whether at the second moment, or what follows from it

  COSMIC_METHOD explicit NoProbe(const Coefficients & /*c*/) {}
  // The terms of the sums for 16 elements, whose slots hold the new moments.
  template <class V> COSMIC_METHOD void look(const Slots<V> & /*slots*/, const V & /*gradient*/,
                                             V * /*terms*/) const {}
};

} // namespace cosmic::COSMIC_TARGET
