// `bf16`: the upper half of a float's bits, rounded stochastically. Rounding to nearest would
// freeze a slow average: with beta2 = 0.999 an update is smaller than half a unit of the last
// place. Adding 16 random bits before the cut is unbiased.
// Layout: plane 0, element k of the tensor's walk order at index k, 2 bytes; no padding.
#pragma once

#include "codecs/random.h"

namespace cosmic::COSMIC_TARGET {

// Keeps infinities and turns every NaN into a quiet one, which the addition could carry to zero.
COSMIC_INLINE I32 float_to_bf16(F32 value, I32 rounding) {
  const I32 bits = as_int(value);
  const I32 rounded = shift_right<16>(bits + rounding);
  const I32 magnitude = bits & I32::splat(0x7fffffff);
  return where_greater(magnitude, I32::splat(0x7f800000), I32::splat(0x7fc0), rounded);
}

struct Bf16 {
  static constexpr bool kPresent = true, kStochastic = true;
  static constexpr int kPlanes = 1;
  static constexpr int64_t bytes(int /*plane*/, int64_t numel) { return numel * 2; }

  uint16_t *at;
  uint32_t key;

  COSMIC_METHOD Bf16(const Planes &planes, int64_t block, const BlockRandom &random, int slot)
      : at((uint16_t *)planes.data[0] + block * kBlock), key(random.slot_key(slot)) {}
  COSMIC_METHOD void load(int group, F32 &out) const {
    out = as_float(shift_left<16>(load_u16(at + group * kLanes)));
  }
  COSMIC_METHOD void store(int group, const F32 &value) const {
    store_u16(at + group * kLanes, float_to_bf16(value, shift_right<16>(random_lanes(key, group))));
  }
};

} // namespace cosmic::COSMIC_TARGET
