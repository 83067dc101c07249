// Formats `q8` and `u4`: every element as a signed integer under its block's scale.
#pragma once

#include "codecs/signed_levels.h"
#include "wire/format.h"

namespace cosmic::COSMIC_TARGET {

constexpr uint16_t kNoNumber = 0x7fc0;     // NaN, as a bf16 number
constexpr uint32_t kTooLarge = 254u << 23; // the bits of 2^127

template <int kBits> struct WireLevels {
  using Levels = SignedLevels<kBits, true>;
  static constexpr int64_t kCodes = Codes<kBits>::kBytes;
  static constexpr int64_t kBytes = kCodes + 2;

  COSMIC_METHOD static uint16_t scale_at(const uint8_t *bytes) {
    uint16_t word;
    __builtin_memcpy(&word, bytes + kCodes, 2);
    return word;
  }
  COSMIC_METHOD static typename Levels::Reader reader(const uint8_t *bytes) {
    alignas(64) uint8_t codes[kCodes]; // a message has its blocks at any place
    __builtin_memcpy(codes, bytes, kCodes);
    // of the context this format needs nothing
    return {Codes<kBits>::load(codes), scale_at(bytes), BlockContext({}, 0, kBlock, nullptr), 1.0f};
  }

  template <class Rounding>
  COSMIC_METHOD static void encode(const float *values, uint8_t *bytes, Rounding rounding) {
    typename Levels::Statistics statistics;
    for (int k = 0; k < kBlock; k += kLanes) statistics.see(F32::load(values + k));
    const uint32_t top = statistics.summary();
    Codes<kBits> codes = Codes<kBits>::none();
    uint16_t word = kNoNumber;
    if (__builtin_expect(top < kTooLarge, 1))
      word = Levels::encode_rounded(values, top, rounding, codes);
    alignas(64) uint8_t stored[kCodes];
    codes.store(stored);
    __builtin_memcpy(bytes, stored, kCodes);
    __builtin_memcpy(bytes + kCodes, &word, 2);
  }
  COSMIC_METHOD static void encode(const float *values, uint8_t *bytes, const WireEncoding &of,
                                   int64_t block) {
    if (of.stochastic)
      encode(values, bytes, Stochastically{BlockRandom(of.key, block).slot_key(0)});
    else
      encode(values, bytes, ToNearest{});
  }

  COSMIC_METHOD static bool is_number(const uint8_t *bytes) { return scale_at(bytes) != kNoNumber; }

  // sums <- sums + sign of what the bytes stand for; sign is 1 or -1
  template <bool kAdds> COSMIC_METHOD static void add(const uint8_t *bytes, float *sums) {
    const auto at = reader(bytes);
    for_each_group([&](auto group) COSMIC_LAMBDA {
      float *const to = sums + group.index * kLanes;
      const F32 before = F32::load(to), value = at.at(group);
      (kAdds ? before + value : before - value).store(to);
    });
  }
};

} // namespace cosmic::COSMIC_TARGET
