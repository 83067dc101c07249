// `none`: the slot does not exist. It decodes to nothing and keeps nothing.
#pragma once

#include "codecs/context.h"

namespace cosmic::COSMIC_TARGET {

struct None : CodecTraits {
  static constexpr bool kPresent = false, kCompressed = false, kStaged = false,
                        kUpdateUnits = false;
  static constexpr bool kMatrix = false;
  static constexpr int kPlanes = 0;
  using Summary = Nothing;
  static constexpr int64_t bytes(int /*plane*/, int64_t /*numel*/) { return 0; }

  COSMIC_METHOD None(const Planes & /*planes*/, int64_t /*block*/, const BlockContext & /*context*/,
                     int /*slot*/, double /*decay*/, float * /*waiting*/) {}
  template <class Index, class V> COSMIC_METHOD void load(Index, V & /*out*/) {}
  template <class Index, class V> COSMIC_METHOD void store(Index, const V & /*value*/) {}
  template <bool kTail>
  COSMIC_METHOD Nothing measure(const Planes &, int64_t, const BlockContext &, int64_t) {
    return {};
  }
  COSMIC_METHOD static void encode(const Planes &, int64_t, const BlockContext &, int,
                                   const float *, Nothing) {}
};

} // namespace cosmic::COSMIC_TARGET
