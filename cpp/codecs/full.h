// `fp32` and `fp64`: the slot in the type of the arithmetic, nothing lost.
// Layout: plane 0, element k of the tensor's walk order at index k; no padding.
#pragma once

#include "codecs/random.h"

namespace cosmic::COSMIC_TARGET {

template <class Real> struct Full {
  static constexpr bool kPresent = true, kStochastic = false;
  static constexpr int kPlanes = 1;
  static constexpr int64_t bytes(int /*plane*/, int64_t numel) {
    return numel * (int64_t)sizeof(Real);
  }

  Real *at;

  COSMIC_METHOD Full(const Planes &planes, int64_t block, const BlockRandom & /*random*/,
                     int /*slot*/)
      : at((Real *)planes.data[0] + block * kBlock) {}
  COSMIC_METHOD void load(int group, Lanes<Real> &out) const {
    out = Lanes<Real>::load(at + group * kLanes);
  }
  COSMIC_METHOD void store(int group, const Lanes<Real> &value) const {
    value.store(at + group * kLanes);
  }
};

using Fp32 = Full<float>;
using Fp64 = Full<double>;

} // namespace cosmic::COSMIC_TARGET
