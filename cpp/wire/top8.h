// Format `top8`: of a block the 8 largest magnitudes, of equal ones those of the lower indices.
// Layout, 13 bytes a block: 8 indices of 7 bits, ascending, the first in the lowest bits of 7
// bytes; 8 values of 4 bits, the first in the lowest bits of 4 bytes: a sign above the number of a
// level; the scale, the largest magnitude as a bf16 number to nearest, at most the largest finite
// one. A value is a level times the scale. A magnitude goes to the nearest level, zero being one of
// them: what is nearest to zero is not sent. Its place in the list repeats the last index that was
// sent. A block whose largest magnitude is below 2^-100 is all zeros.
#pragma once

#include "codecs/signed_levels.h"
#include "wire/levels.h"

namespace cosmic::COSMIC_TARGET {

constexpr int kKept = 8;
// Of the least mean square error over gradients' 8 largest, see docs/distributed.md.
constexpr float kTopLevels[8] = {0.40f, 0.51f, 0.59f, 0.67f, 0.75f, 0.82f, 0.90f, 1.0f};

struct Top8 {
  static constexpr int64_t kBytes = 13;

  COSMIC_METHOD static uint16_t scale_at(const uint8_t *bytes) {
    uint16_t word;
    __builtin_memcpy(&word, bytes + 11, 2);
    return word;
  }
  COSMIC_METHOD static bool is_number(const uint8_t *bytes) { return scale_at(bytes) != kNoNumber; }

  COSMIC_METHOD static uint16_t scale_of(uint32_t magnitude) {
    if (magnitude < kLeastAbsmax) return 0;
    return (uint16_t)((magnitude + 0x7fff + (magnitude >> 16 & 1)) >> 16);
  }
  // The nearest level's number and 1; 0 for zero.
  COSMIC_METHOD static uint32_t level_of(float share) {
    uint32_t level = share >= 0.5f * kTopLevels[0];
    for (int k = 1; k < 8; ++k) level += share >= 0.5f * (kTopLevels[k - 1] + kTopLevels[k]);
    return level;
  }

  // The 16 magnitudes of a group, and which is the largest of those that were not taken.
  struct Groups {
    alignas(64) int32_t bits[kBlock]; // and one; 0: taken
    uint32_t top[kBlock / kLanes];

    COSMIC_METHOD explicit Groups(const float *values) {
      for (int i = 0; i < (int)(kBlock / kLanes); ++i) {
        const I32 magnitudes = as_int(abs(F32::load(values + i * kLanes))) + I32::splat(1);
        magnitudes.store(bits + i * kLanes);
        top[i] = reduce_unsigned_max(magnitudes);
      }
    }
    COSMIC_METHOD int largest() const {
      int best = 0;
      for (int i = 1; i < (int)(kBlock / kLanes); ++i) best = top[i] > top[best] ? i : best;
      return best;
    }
    // The first index of the largest magnitude.
    COSMIC_METHOD int take() {
      const int group = largest();
      int32_t *const at = bits + group * kLanes;
      int lane = 0;
      while ((uint32_t)at[lane] != top[group]) ++lane;
      at[lane] = 0;
      top[group] = reduce_unsigned_max(I32::load(at));
      return group * kLanes + lane;
    }
  };

  struct List {
    uint64_t indices = 0;
    uint32_t values = 0;
    int count = 0, last = 0;

    COSMIC_METHOD void append(int index, uint32_t value) {
      indices |= (uint64_t)index << (7 * count);
      values |= value << (4 * count++);
      last = index;
    }
    COSMIC_METHOD void store(uint8_t *bytes, uint16_t scale) {
      for (int k = count; k < kKept; ++k) indices |= (uint64_t)last << (7 * k);
      __builtin_memcpy(bytes, &indices, 7);
      __builtin_memcpy(bytes + 7, &values, 4);
      __builtin_memcpy(bytes + 11, &scale, 2);
    }
  };

  COSMIC_METHOD static void encode(const float *values, uint8_t *bytes, const WireEncoding & /*of*/,
                                   int64_t /*block*/) {
    Groups groups(values);
    const uint32_t top = groups.top[groups.largest()] - 1;
    List list;
    if (top >= kTooLarge) return list.store(bytes, kNoNumber);
    const uint16_t scale = scale_of(top);
    if (scale == 0) return list.store(bytes, 0);
    uint64_t kept[2] = {0, 0};
    for (int k = 0; k < kKept; ++k) {
      const int index = groups.take();
      kept[index / 64] |= (uint64_t)1 << (index % 64);
    }
    const float whole = float_of((uint32_t)scale << 16);
    for (int half = 0; half < 2; ++half)
      for (uint64_t left = kept[half]; left; left &= left - 1) {
        const int index = 64 * half + __builtin_ctzll(left);
        const uint32_t bits = bits_of(values[index]);
        const uint32_t level = level_of(float_of(bits & 0x7fffffff) / whole);
        if (level) list.append(index, (bits >> 31) << 3 | (level - 1));
      }
    list.store(bytes, scale);
  }

  template <bool kAdds> COSMIC_METHOD static void add(const uint8_t *bytes, float *sums) {
    const uint16_t scale = scale_at(bytes);
    const float whole = float_of((uint32_t)scale << 16);
    if (scale == kNoNumber) return spoil(sums);
    if (scale == 0) return;
    uint64_t indices = 0;
    uint32_t values = 0;
    __builtin_memcpy(&indices, bytes, 7);
    __builtin_memcpy(&values, bytes + 7, 4);
    int last = -1;
    for (int k = 0; k < kKept; ++k) {
      const int index = (int)(indices >> (7 * k) & 127);
      if (index <= last) return; // no more were sent
      const uint32_t value = values >> (4 * k);
      const float magnitude = kTopLevels[value & 7] * whole;
      sums[index] += ((value & 8) != 0) == kAdds ? -magnitude : magnitude;
      last = index;
    }
  }

private:
  COSMIC_METHOD static void spoil(float *sums) {
    const F32 none = F32::splat(float_of((uint32_t)kNoNumber << 16));
    for (int k = 0; k < kBlock; k += kLanes) none.store(sums + k);
  }
};

} // namespace cosmic::COSMIC_TARGET
