// Codes of 1, 2, 3, 4, 6 or 8 bits, planar in a block of 128: code i 16 + j is bits [i b, i b + b)
// of word j, words of 8 (1 bit), 16 (2 bits) or 32 bits (4 bits); with 8 bits two rows of 16 words
// of 32 bits hold groups 0..3 and 4..7. Decoding is a shift of 16 words by a constant. Codes of 3
// bits are their lower 2 as such, then their upper bit as such; of 6, their lower 4 and upper 2.
#pragma once

#include "codecs/context.h"

namespace cosmic::COSMIC_TARGET {

constexpr int64_t blocks_of(int64_t numel) { return (numel + kBlock - 1) / kBlock; }

template <int kBits> struct Codes {
  static constexpr int64_t kBytes = kBits * kBlock / 8; // of a block
  static constexpr int kRows = kBits == 8 ? 2 : 1;
  static constexpr int kGroupsARow = 8 / kRows;
  I32 rows[kRows];

  COSMIC_METHOD static Codes none() {
    Codes out;
    for (int r = 0; r < kRows; ++r) out.rows[r] = I32::splat(0);
    return out;
  }

  COSMIC_METHOD static Codes load(const uint8_t *from) {
    Codes out;
    if constexpr (kBits == 1) out.rows[0] = load_u8(from);
    if constexpr (kBits == 2) out.rows[0] = load_u16((const uint16_t *)from);
    if constexpr (kBits >= 4)
      for (int r = 0; r < kRows; ++r) out.rows[r] = I32::load((const int32_t *)from + r * kLanes);
    return out;
  }

  COSMIC_METHOD void store(uint8_t *to) const {
    if constexpr (kBits == 1) store_u8(to, rows[0]);
    if constexpr (kBits == 2) store_u16((uint16_t *)to, rows[0]);
    if constexpr (kBits >= 4)
      for (int r = 0; r < kRows; ++r) rows[r].store((int32_t *)to + r * kLanes);
  }

  // The group's codes in the low bits; those of later groups are still above them.
  template <int i> COSMIC_METHOD I32 low(Group<i>) const {
    return shift_right<kBits *(i % kGroupsARow)>(rows[i / kGroupsARow]);
  }
  // The group's codes alone.
  template <int i> COSMIC_METHOD I32 alone(Group<i> group) const {
    if constexpr (kBits == 8 && i % kGroupsARow == kGroupsARow - 1) return low(group); // the last
    return low(group) & I32::splat((1 << kBits) - 1);
  }
  // The group's codes as numbers in two's complement.
  template <int i> COSMIC_METHOD I32 signed_alone(Group<i>) const {
    constexpr int up = 32 - kBits - kBits * (i % kGroupsARow);
    return shift_right_signed<32 - kBits>(shift_left<up>(rows[i / kGroupsARow]));
  }
  // Takes codes that nothing stands beside.
  template <int i> COSMIC_METHOD void put_alone(Group<i>, I32 code) {
    I32 &row = rows[i / kGroupsARow];
    row = row | shift_left<kBits *(i % kGroupsARow)>(code);
  }
  // Takes codes that are too large by a number that `less` takes away from all; of 4 or 8 bits.
  template <int i> COSMIC_METHOD void put_above(Group<i>, I32 code) {
    I32 &row = rows[i / kGroupsARow];
    row = row + shift_left<kBits *(i % kGroupsARow)>(code);
  }
  COSMIC_METHOD void less(uint32_t above) {
    constexpr uint32_t kOnes = 0xffffffffu / ((1u << kBits) - 1); // a one in each place
    for (int r = 0; r < kRows; ++r) rows[r] = rows[r] - I32::splat((int32_t)(above * kOnes));
  }
  // Takes the group's codes from bits [kFrom, kFrom + kBits); what stands beside them is ignored,
  // by one mask for all groups.
  template <int kFrom, int i> COSMIC_METHOD void put(Group<i>, I32 code) {
    constexpr int to = kBits * (i % kGroupsARow);
    I32 &row = rows[i / kGroupsARow];
    code = code & I32::splat((int32_t)(((1u << kBits) - 1) << kFrom));
    if constexpr (to >= kFrom)
      code = shift_left<to - kFrom>(code);
    else
      code = shift_right<kFrom - to>(code);
    row = row | code;
  }
};

// Codes in two parts, the lower bits of a whole block before its upper ones.
template <int kLower, int kUpper> struct SplitCodes {
  static constexpr int64_t kBytes = Codes<kLower>::kBytes + Codes<kUpper>::kBytes;
  Codes<kLower> lower;
  Codes<kUpper> upper;

  COSMIC_METHOD static SplitCodes none() { return {Codes<kLower>::none(), Codes<kUpper>::none()}; }
  COSMIC_METHOD static SplitCodes load(const uint8_t *from) {
    return {Codes<kLower>::load(from), Codes<kUpper>::load(from + Codes<kLower>::kBytes)};
  }
  COSMIC_METHOD void store(uint8_t *to) const {
    lower.store(to);
    upper.store(to + Codes<kLower>::kBytes);
  }
  template <int i> COSMIC_METHOD I32 low(Group<i> group) const {
    return lower.alone(group) | shift_left<kLower>(upper.low(group));
  }
  template <int i> COSMIC_METHOD I32 alone(Group<i> group) const {
    return lower.alone(group) | shift_left<kLower>(upper.alone(group));
  }
  template <int kFrom, int i> COSMIC_METHOD void put(Group<i> group, I32 code) {
    lower.template put<kFrom>(group, code);
    upper.template put<kFrom + kLower>(group, code);
  }
};

template <> struct Codes<3> : SplitCodes<2, 1> {
  COSMIC_METHOD Codes(SplitCodes parts) : SplitCodes(parts) {}
  COSMIC_METHOD static Codes none() { return SplitCodes::none(); }
  COSMIC_METHOD static Codes load(const uint8_t *from) { return SplitCodes::load(from); }
};
template <> struct Codes<6> : SplitCodes<4, 2> {
  COSMIC_METHOD Codes(SplitCodes parts) : SplitCodes(parts) {}
  COSMIC_METHOD static Codes none() { return SplitCodes::none(); }
  COSMIC_METHOD static Codes load(const uint8_t *from) { return SplitCodes::load(from); }
};

} // namespace cosmic::COSMIC_TARGET
