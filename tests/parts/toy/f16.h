// `f16`: a first moment in half precision, to nearest.
// Layout: plane 0, element k of the tensor's walk order at index k, 2 bytes; no padding.
#pragma once

#if defined(COSMIC_TARGET) // the arithmetic, on lanes

#include "codecs/context.h"

namespace cosmic::COSMIC_TARGET {

struct F16 : CodecTraits {
  static constexpr bool kPresent = true, kCompressed = true, kStaged = false, kUpdateUnits = false;
  static constexpr bool kMatrix = false;
  static constexpr int kPlanes = 1;
  using Summary = Nothing;
  static constexpr int64_t bytes(int /*plane*/, int64_t numel) { return numel * 2; }

  uint16_t *at;
  F32 decay;

  COSMIC_METHOD F16(const Planes &planes, int64_t block, const BlockContext & /*context*/,
                    int /*slot*/, float decay, float * /*waiting*/)
      : at((uint16_t *)planes.data[0] + block * kBlock), decay(F32::splat(decay)) {}
  template <int i> COSMIC_METHOD void load(Group<i>, F32 &out) {
    out = decay * load_f16(at + i * kLanes);
  }
  template <int i> COSMIC_METHOD void store(Group<i>, const F32 &value) {
    store_f16(at + i * kLanes, value);
  }
  template <bool kTail>
  COSMIC_METHOD Nothing measure(const Planes &, int64_t, const BlockContext &, int64_t) {
    return {};
  }
  COSMIC_METHOD static void encode(const Planes &, int64_t, const BlockContext &, int,
                                   const float *, Nothing) {}
};

} // namespace cosmic::COSMIC_TARGET

#else // what it says of itself

#include "parts/codec.h"

namespace cosmic::parts {

inline CodecPart f16() {
  CodecPart part;
  part.name = "f16";
  part.first = {planes::of_element("float16", dlpack::kFloat, 16)};
  part.goes_with = {"fp32", "factored"};
  return part;
}

} // namespace cosmic::parts

#endif
