// Random bits from a counter: seed, step, tensor, block, slot and lane, never from a stream, so
// that they do not depend on the ISA, on the thread count or on what was stepped before.
#pragma once

#include "isa/lanes.h"

namespace cosmic::COSMIC_TARGET {

constexpr uint32_t kWeyl = 0x9e3779b9u; // 2^32 / golden ratio

// lowbias32, a 32-bit finalizer (Wellons, "Prospecting for hash functions", 2018)
COSMIC_INLINE uint32_t hash32(uint32_t x) {
  x ^= x >> 16;
  x *= 0x7feb352du;
  x ^= x >> 15;
  x *= 0x846ca68bu;
  return x ^ (x >> 16);
}

// The random bits of one block at one step: one hash a slot, then a Weyl sequence along the lanes.
struct BlockRandom {
  uint32_t tensor_key; // of all blocks at this step
  uint32_t key;

  COSMIC_METHOD BlockRandom(uint32_t tensor_key, int64_t block)
      : tensor_key(tensor_key),
        key(hash32(tensor_key ^ (uint32_t)block ^ (uint32_t)((uint64_t)block >> 32) * kWeyl)) {}

  COSMIC_METHOD uint32_t slot_key(int slot) const { return hash32(key + (uint32_t)slot * kWeyl); }
};

// Lanes 0..15 of a Weyl sequence with this increment.
template <uint32_t kStep> COSMIC_INLINE I32 weyl_lanes() {
  alignas(64) static const int32_t steps[kLanes] = {
      (int32_t)(kStep * 0u),  (int32_t)(kStep * 1u),  (int32_t)(kStep * 2u),
      (int32_t)(kStep * 3u),  (int32_t)(kStep * 4u),  (int32_t)(kStep * 5u),
      (int32_t)(kStep * 6u),  (int32_t)(kStep * 7u),  (int32_t)(kStep * 8u),
      (int32_t)(kStep * 9u),  (int32_t)(kStep * 10u), (int32_t)(kStep * 11u),
      (int32_t)(kStep * 12u), (int32_t)(kStep * 13u), (int32_t)(kStep * 14u),
      (int32_t)(kStep * 15u)};
  return I32::load(steps);
}

// 32 random bits for each lane of a block, a group of 16 at a time.
struct RandomLanes {
  I32 first;

  COSMIC_METHOD explicit RandomLanes(uint32_t slot_key)
      : first(weyl_lanes<kWeyl>() + I32::splat((int32_t)slot_key)) {}
  COSMIC_METHOD I32 of(int group) const {
    return first + I32::splat((int32_t)((uint32_t)group * kLanes * kWeyl));
  }
};

// For each lane of a block a float base + r, r uniform in [0, 1): `base` is 2^k or 1.5 2^k, 1 <= k
// <= 22, and r has 23 - k bits. Of k = 0 it is base (1 + r), base any power of two. A Weyl sequence
// of that many bits, so that one mask makes it.
template <int k> struct RandomAbove {
  static constexpr int kBits = 23 - k;
  static constexpr uint32_t kStep = (kWeyl >> (32 - kBits)) | 1;
  I32 first;

  COSMIC_METHOD explicit RandomAbove(uint32_t slot_key)
      : first(weyl_lanes<kStep>() + I32::splat((int32_t)slot_key)) {}
  COSMIC_METHOD F32 of(int group, float base) const {
    const I32 lanes = first + I32::splat((int32_t)((uint32_t)group * kLanes * kStep));
    const I32 fraction = lanes & I32::splat((int32_t)((1u << kBits) - 1));
    return as_float(fraction | as_int(F32::splat(base)));
  }
};

// As RandomAbove, a group at a time, in antithetic pairs: lanes 2 j and 2 j + 1 have r and 1 - r,
// but for half a unit of the last place.
template <int k> struct AntitheticAbove {
  static constexpr int kBits = 23 - k;
  static constexpr uint32_t kStep = (kWeyl >> (32 - kBits)) | 1;
  static constexpr uint32_t kGroup = kStep * (kLanes / 2);
  I32 lanes, step;

  COSMIC_METHOD explicit AntitheticAbove(uint32_t slot_key) {
    alignas(64) int32_t first[kLanes], steps[kLanes];
    for (uint32_t lane = 0; lane < kLanes; ++lane) {
      const uint32_t value = slot_key + lane / 2 * kStep;
      first[lane] = (int32_t)(lane % 2 ? ~value : value);
      steps[lane] = (int32_t)(lane % 2 ? 0u - kGroup : kGroup);
    }
    lanes = I32::load(first);
    step = I32::load(steps);
  }
  COSMIC_METHOD F32 next(float base) {
    const I32 fraction = lanes & I32::splat((int32_t)((1u << kBits) - 1));
    lanes = lanes + step;
    return as_float(fraction | as_int(F32::splat(base)));
  }
};

} // namespace cosmic::COSMIC_TARGET
