// `bf16`: the upper half of a float's bits, rounded stochastically. Rounding to nearest would
// freeze a slow average: with beta2 = 0.999 an update is smaller than half a unit of the last
// place. Adding 16 random bits before the cut is unbiased.
// Layout: plane 0, element k of the tensor's walk order at index k, 2 bytes; no padding.
#pragma once

#if defined(COSMIC_TARGET) // the arithmetic, on lanes

#include "codecs/context.h"

namespace cosmic::COSMIC_TARGET {

// Keeps infinities and turns every NaN into a quiet one, which the addition could carry to zero.
COSMIC_INLINE I32 float_to_bf16(F32 value, I32 rounding) {
  const I32 rounded = shift_right<16>(as_int(value) + rounding);
  return where_nan(value, I32::splat(0x7fc0), rounded);
}

struct Bf16 : CodecTraits {
  static constexpr bool kPresent = true, kCompressed = true, kStaged = false, kUpdateUnits = false;
  static constexpr bool kMatrix = false;
  static constexpr int kPlanes = 1;
  using Summary = Nothing;
  static constexpr int64_t bytes(int /*plane*/, int64_t numel) { return numel * 2; }

  uint16_t *at;
  RandomLanes random;

  F32 decay;

  COSMIC_METHOD Bf16(const Planes &planes, int64_t block, const BlockContext &context, int slot,
                     float decay, float * /*waiting*/)
      : at((uint16_t *)planes.data[0] + block * kBlock), random(context.random.slot_key(slot)),
        decay(F32::splat(decay)) {}
  template <int i> COSMIC_METHOD void load(Group<i>, F32 &out) {
    out = decay * as_float(shift_left<16>(load_u16(at + i * kLanes)));
  }
  template <int i> COSMIC_METHOD F32 unit(Group<i>, F32 scale, F32 eps) const {
    return sqrt(as_float(shift_left<16>(load_u16(at + i * kLanes)))) * scale + eps;
  }
  template <int i> COSMIC_METHOD void store(Group<i>, const F32 &value) {
    store_u16(at + i * kLanes, float_to_bf16(value, shift_right<16>(random.of(i))));
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

inline CodecPart bf16() {
  CodecPart part;
  part.name = "bf16";
  part.first = part.second = {planes::of_element("bfloat16", dlpack::kBfloat, 16)};
  return part;
}

} // namespace cosmic::parts

#endif
