// Parameters of 24 bits: the upper 24 of a float, kept as bf16 and a plane of 8 bits more, after
// FlashOptim (arXiv 2602.23349). As integers `t = (high << 8) + low`, low from -128 to 127: high is
// t rounded to nearest (ties away from zero), so that the bf16 half is itself the copy for a
// device.
#pragma once

#include "codecs/context.h"
#include "kernels/pass.h"

namespace cosmic::COSMIC_TARGET {

constexpr int kParamSlot = 3, kMasterSlot = 4; // after m, m_slow and v

// The lower bits where they go with the upper ones. Somebody may have changed those alone: nothing
// is taken from zero, nor added to an infinity, and a NaN stays one.
COSMIC_INLINE I32 fitting_low(I32 high, I32 low) {
  const I32 zero = I32::splat(0), magnitude = high & I32::splat(0x7fff);
  low = where_greater(magnitude, I32::splat(0x7f7f), where_greater(low, zero, zero, low), low);
  low = where_greater(magnitude, I32::splat(0x7f80), zero, low);
  return where_greater(I32::splat(1), magnitude, max(low, zero), low);
}

inline void join_24(const uint16_t *high, const int8_t *low, int64_t count, float *to) {
  for (int64_t k = 0; k < count; k += kLanes) {
    if (k % (2 * kLanes) == 0) __builtin_prefetch((const char *)(high + k) + kPrefetchBytes);
    if (k % (4 * kLanes) == 0) __builtin_prefetch((const char *)(low + k) + kPrefetchBytes / 2);
    const I32 upper = load_u16(high + k);
    const I32 lower = shift_right_signed<24>(shift_left<24>(load_u8((const uint8_t *)low + k)));
    as_float(shift_left<16>(upper) + shift_left<8>(fitting_low(upper, lower))).store(to + k);
  }
}

// `rounding`: 8 bits that are added below the cut.
COSMIC_INLINE void store_24(F32 x, I32 rounding, uint16_t *high, int8_t *low) {
  const I32 t = where_nan(x, I32::splat(0x7fc000), shift_right<8>(as_int(x) + rounding));
  const I32 upper = shift_right<8>(t + I32::splat(128));
  store_u16(high, upper);
  store_u8((uint8_t *)low, (t - shift_left<8>(upper)) & I32::splat(255));
}

inline void split_24(const float *from, int64_t count, uint16_t *high, int8_t *low) {
  for (int64_t k = 0; k < count; k += kLanes) {
    const F32 x = F32::load(from + k);
    // half a unit less one, and the kept bit's parity: to nearest, ties to even
    const I32 parity = shift_right<8>(as_int(x)) & I32::splat(1);
    store_24(x, parity + I32::splat(0x7f), high + k, low + k);
  }
}

inline void round_24(const float *from, int64_t count, const RandomPlace &place, uint16_t *high,
                     int8_t *low) {
  for (int64_t k = 0; k < count; k += kBlock) {
    const BlockRandom block(place.tensor_key, place.block + k / kBlock, place.lane);
    const RandomLanes random(block.slot_key(kMasterSlot));
    for_each_group([&](auto group) COSMIC_LAMBDA {
      const int64_t at = k + group.index * kLanes;
      if (at >= count) return;
      store_24(F32::load(from + at), shift_right<24>(random.of(group.index)), high + at, low + at);
    });
  }
}

} // namespace cosmic::COSMIC_TARGET
