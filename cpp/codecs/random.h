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

// The random bits of one block at one step: one hash a slot, then a Weyl sequence along the lanes,
// which may begin at a later one: elements that share their block with another shard.
struct BlockRandom {
  uint32_t tensor_key; // of all blocks at this step
  uint32_t key;
  uint32_t skipped; // of the sequence

  COSMIC_METHOD BlockRandom(uint32_t tensor_key, int64_t block, int lane = 0)
      : tensor_key(tensor_key),
        key(hash32(tensor_key ^ (uint32_t)block ^ (uint32_t)((uint64_t)block >> 32) * kWeyl)),
        skipped((uint32_t)lane * kWeyl) {}

  COSMIC_METHOD uint32_t slot_key(int slot) const {
    return hash32(key + (uint32_t)slot * kWeyl) + skipped;
  }
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

// 32 random bits for each lane of a block, a group of 16 at a time: one sequence through all
// groups.
struct RandomLanes {
  I32 first;

  COSMIC_METHOD explicit RandomLanes(uint32_t slot_key)
      : first(weyl_lanes<kWeyl>() + I32::splat((int32_t)slot_key)) {}
  COSMIC_METHOD I32 of(int group) const {
    return first + I32::splat((int32_t)((uint32_t)group * kLanes * kWeyl));
  }
};

// What tells the groups of a block apart where no sequence goes through them: a group's number in
// the upper three bits, the other way round. Of the eight numbers that a lane has in a block one
// lies in each eighth of their range, and one operation makes them, whatever stands beside.
constexpr uint32_t group_bits(int group) {
  return (uint32_t)((group & 1) << 2 | (group & 2) | group >> 2) << 29;
}

// The same for all lanes, less its lower bits. In memory, where one operation finds it; to make
// such a number takes three.
#define COSMIC_OF(i) (int32_t)(group_bits(i) >> (32 - kBits))
#define COSMIC_4_OF(i) COSMIC_OF(i), COSMIC_OF(i), COSMIC_OF(i), COSMIC_OF(i)
#define COSMIC_LANES_OF(i) {COSMIC_4_OF(i), COSMIC_4_OF(i), COSMIC_4_OF(i), COSMIC_4_OF(i)}
template <int kBits> struct GroupLanes {
  alignas(64) static constexpr int32_t kLanesOf[][kLanes] = {
      COSMIC_LANES_OF(0), COSMIC_LANES_OF(1), COSMIC_LANES_OF(2), COSMIC_LANES_OF(3),
      COSMIC_LANES_OF(4), COSMIC_LANES_OF(5), COSMIC_LANES_OF(6), COSMIC_LANES_OF(7)};
  const int32_t *lanes = held(&kLanesOf[0][0]);

  COSMIC_METHOD I32 of(int group) const { return I32::load(lanes + group * kLanes); }
};
#undef COSMIC_OF
#undef COSMIC_4_OF
#undef COSMIC_LANES_OF

// `count` random bits, at least 3, for each lane of a block.
struct RandomBits {
  I32 first;
  int drop;

  COSMIC_METHOD RandomBits(uint32_t slot_key, int count)
      : first(shift_right(RandomLanes(slot_key).first, 32 - count)), drop(32 - count) {}
  COSMIC_METHOD I32 of(int group) const {
    return first ^ shift_right(I32::splat((int32_t)group_bits(group)), drop);
  }
};

// For each lane of a block a float base + r, r uniform in [0, 1): `base` is a whole number in [2^k,
// 2^(k + 1)), 1 <= k <= 20, and r has 23 - k bits. Of k = 0 it is base (1 + r), base any power of
// two. A Weyl sequence of that many bits along the lanes.
template <int k> struct RandomAbove {
  static constexpr int kBits = 23 - k;
  static constexpr uint32_t kStep = (kWeyl >> (32 - kBits)) | 1;
  I32 first;
  GroupLanes<kBits> groups;

  COSMIC_METHOD RandomAbove(uint32_t slot_key, float base)
      : first(((weyl_lanes<kStep>() + I32::splat((int32_t)slot_key)) &
               I32::splat((int32_t)((1u << kBits) - 1))) |
              as_int(F32::splat(base))) {}
  COSMIC_METHOD F32 of(int group) const { return as_float(first ^ groups.of(group)); }
};

// As RandomAbove, in antithetic pairs: lanes 2 j and 2 j + 1 have r and 1 - r, but for half a unit
// of the last place.
template <int k> struct AntitheticAbove {
  static constexpr int kBits = 23 - k;
  static constexpr uint32_t kStep = (kWeyl >> (32 - kBits)) | 1;
  I32 first;
  GroupLanes<kBits> groups;

  COSMIC_METHOD AntitheticAbove(uint32_t slot_key, float base) {
    alignas(64) static const int32_t steps[kLanes] = {
        (int32_t)(kStep * 0u), (int32_t)(kStep * 0u), (int32_t)(kStep * 1u), (int32_t)(kStep * 1u),
        (int32_t)(kStep * 2u), (int32_t)(kStep * 2u), (int32_t)(kStep * 3u), (int32_t)(kStep * 3u),
        (int32_t)(kStep * 4u), (int32_t)(kStep * 4u), (int32_t)(kStep * 5u), (int32_t)(kStep * 5u),
        (int32_t)(kStep * 6u), (int32_t)(kStep * 6u), (int32_t)(kStep * 7u), (int32_t)(kStep * 7u)};
    alignas(64) static const int32_t odd[kLanes] = {0, -1, 0, -1, 0, -1, 0, -1,
                                                    0, -1, 0, -1, 0, -1, 0, -1};
    const I32 lanes = (I32::load(steps) + I32::splat((int32_t)slot_key)) ^ I32::load(odd);
    first = (lanes & I32::splat((int32_t)((1u << kBits) - 1))) | as_int(F32::splat(base));
  }
  COSMIC_METHOD F32 of(int group) const { return as_float(first ^ groups.of(group)); }
};

} // namespace cosmic::COSMIC_TARGET
