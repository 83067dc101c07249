// `fp32` and `fp64`: the slot in the type of the arithmetic, nothing lost.
// Layout: plane 0, element k of the tensor's walk order at index k; no padding.
#pragma once

#if defined(COSMIC_TARGET) // the arithmetic, on lanes

#include "codecs/context.h"

namespace cosmic::COSMIC_TARGET {

template <class Real> struct Full : CodecTraits {
  static constexpr bool kPresent = true, kCompressed = false, kStaged = false, kUpdateUnits = false;
  static constexpr bool kMatrix = false, kDirect = true;
  static constexpr int kPlanes = 1;
  using Summary = Nothing;
  static constexpr int64_t bytes(int /*plane*/, int64_t numel) {
    return numel * (int64_t)sizeof(Real);
  }

  Real *at;
  Lanes<Real> decay;

  COSMIC_METHOD Full(const Planes &planes, int64_t block, const BlockContext & /*context*/,
                     int /*slot*/, Real decay, float * /*waiting*/)
      : at((Real *)planes.data[0] + block * kBlock), decay(Lanes<Real>::splat(decay)) {}
  template <int i> COSMIC_METHOD void load(Group<i>, Lanes<Real> &out) {
    out = decay * Lanes<Real>::load(at + i * kLanes);
  }
  template <int i>
  COSMIC_METHOD Lanes<Real> unit(Group<i>, Lanes<Real> scale, Lanes<Real> eps) const {
    return sqrt(Lanes<Real>::load(at + i * kLanes)) * scale + eps;
  }
  COSMIC_METHOD static void ask(const Planes &planes, int64_t block) {
    const auto *from = (const char *)planes.data[0] + block * kBlock * (int64_t)sizeof(Real);
    for (int64_t k = 0; k < kBlock * (int64_t)sizeof(Real); k += 64) __builtin_prefetch(from + k);
  }
  template <int i> COSMIC_METHOD void prefetch(Group<i>, int64_t ahead) const {
    __builtin_prefetch((const char *)(at + i * kLanes) + ahead);
  }
  template <int i> COSMIC_METHOD void store(Group<i>, const Lanes<Real> &value) {
    value.store(at + i * kLanes);
  }
  template <bool kTail>
  COSMIC_METHOD Nothing measure(const Planes &, int64_t, const BlockContext &, int64_t) {
    return {};
  }
  COSMIC_METHOD static void encode(const Planes &, int64_t, const BlockContext &, int,
                                   const float *, Nothing) {}
};

using Fp32 = Full<float>;
using Fp64 = Full<double>;

} // namespace cosmic::COSMIC_TARGET

#else // what it says of itself

#include "parts/codec.h"

namespace cosmic::parts {

inline CodecPart fp32() {
  CodecPart part;
  part.name = "fp32";
  part.first = part.second = {planes::of_element("float32", dlpack::kFloat, 32)};
  return part;
}

inline CodecPart fp64() {
  CodecPart part;
  part.name = "fp64";
  part.first = part.second = {planes::of_element("float64", dlpack::kFloat, 64)};
  return part;
}

} // namespace cosmic::parts

#endif
