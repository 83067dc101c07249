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
  uint32_t key;

  COSMIC_METHOD BlockRandom(uint32_t tensor_key, int64_t block)
      : key(hash32(tensor_key ^ (uint32_t)block ^ (uint32_t)((uint64_t)block >> 32) * kWeyl)) {}

  COSMIC_METHOD uint32_t slot_key(int slot) const { return hash32(key + (uint32_t)slot * kWeyl); }
};

// 32 random bits for each of the 16 lanes of group `group` (0..7) of a block.
COSMIC_INLINE I32 random_lanes(uint32_t slot_key, int group) {
  alignas(64) static const int32_t steps[kLanes] = {
      (int32_t)(kWeyl * 0u),  (int32_t)(kWeyl * 1u),  (int32_t)(kWeyl * 2u),
      (int32_t)(kWeyl * 3u),  (int32_t)(kWeyl * 4u),  (int32_t)(kWeyl * 5u),
      (int32_t)(kWeyl * 6u),  (int32_t)(kWeyl * 7u),  (int32_t)(kWeyl * 8u),
      (int32_t)(kWeyl * 9u),  (int32_t)(kWeyl * 10u), (int32_t)(kWeyl * 11u),
      (int32_t)(kWeyl * 12u), (int32_t)(kWeyl * 13u), (int32_t)(kWeyl * 14u),
      (int32_t)(kWeyl * 15u)};
  return I32::load(steps) + I32::splat((int32_t)(slot_key + (uint32_t)group * kLanes * kWeyl));
}

// For each of the 16 lanes a float base + r, r uniform in [0, 1): `base` is 2^k or 1.5 2^k, 1 <= k
// <= 22, and r has 23 - k bits. A Weyl sequence of that many bits, so that one mask makes it.
template <int k> COSMIC_INLINE F32 random_above(uint32_t slot_key, int group, float base) {
  constexpr int kBits = 23 - k;
  constexpr uint32_t step = (kWeyl >> (32 - kBits)) | 1;
  alignas(64) static const int32_t steps[kLanes] = {
      (int32_t)(step * 0u),  (int32_t)(step * 1u),  (int32_t)(step * 2u),  (int32_t)(step * 3u),
      (int32_t)(step * 4u),  (int32_t)(step * 5u),  (int32_t)(step * 6u),  (int32_t)(step * 7u),
      (int32_t)(step * 8u),  (int32_t)(step * 9u),  (int32_t)(step * 10u), (int32_t)(step * 11u),
      (int32_t)(step * 12u), (int32_t)(step * 13u), (int32_t)(step * 14u), (int32_t)(step * 15u)};
  const uint32_t first = slot_key + (uint32_t)group * kLanes * step;
  const I32 fraction =
      (I32::load(steps) + I32::splat((int32_t)first)) & I32::splat((int32_t)((1u << kBits) - 1));
  return as_float(fraction | as_int(F32::splat(base)));
}

} // namespace cosmic::COSMIC_TARGET
