// `none`: the slot does not exist. It decodes to nothing and keeps nothing.
#pragma once

#include "codecs/random.h"

namespace cosmic::COSMIC_TARGET {

struct None {
  static constexpr bool kPresent = false, kStochastic = false;
  static constexpr int kPlanes = 0;
  static constexpr int64_t bytes(int /*plane*/, int64_t /*numel*/) { return 0; }

  COSMIC_METHOD None(const Planes & /*planes*/, int64_t /*block*/, const BlockRandom & /*random*/,
                     int /*slot*/) {}
  template <class V> COSMIC_METHOD void load(int /*group*/, V & /*out*/) const {}
  template <class V> COSMIC_METHOD void store(int /*group*/, const V & /*value*/) const {}
};

} // namespace cosmic::COSMIC_TARGET
