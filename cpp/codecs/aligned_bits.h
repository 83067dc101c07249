// Numbers >= 0 as steps between their float bits, which grow as the number does: no logarithm, no
// exponential. `v4` of a second moment, and `v4` and `v8` of plain tensors. Of a block, read as
// integers, with n = 2^bits - 2 (14 or 254):
//   r  = (max - min) / n        s = bit length of r, within [least, 23], least = 17 or 5
//   lo = min rounded down to a multiple of 2^s; if s would pass 23, s = 23 and lo lies 2^bits - 1
//        binades under max (smaller numbers are clamped to it)
//   code = (max(x, lo) - lo + random) >> s, random uniform in [0, 2^s) from the counter
//   x ~ lo + (code << s)
// Neighbouring levels lie in one binade, so a number between them is linear in its bits and the
// rounding is unbiased in the number itself. That matters: an average with decay 0.999 multiplies
// a bias by a thousand.
// A block of 4 bits that holds zeros beside other numbers keeps code 0 for them, so that they do
// not stretch its steps: min is of the others, n = 13, and lo a step lower, though not below 0.
// Where s would pass 23, lo lies 15 binades under max still, and what is smaller is stored as
// lo + 2^s. An element without a second moment has no first one either: its update unit is next to
// nothing.
// Word of a block: lo's bits, which end in s zeros (at least 16 of them, or 5), with s beneath: 4
// bits, the upper half of lo with the lowest set bit at s - 17, and the sign set in a block with
// zeros; 8 bits, all of lo with s added.
#pragma once

#include "codecs/blockwise.h"

namespace cosmic::COSMIC_TARGET {

template <int kBitsOfCode> struct WordOfBits {
  using type = uint16_t;
};
template <> struct WordOfBits<8> {
  using type = uint32_t;
};

template <int kBitsOfCode> struct AlignedBits {
  static constexpr int kBits = kBitsOfCode;
  static constexpr bool kUpdateUnits = false, kFewUnits = kBits == 4;
  static constexpr bool kWholeLevels = false, kCompletes = false, kOpensAhead = false;
  static constexpr int kTop = (1 << kBits) - 1, kLeastShift = kBits == 4 ? 17 : 5;
  static constexpr uint32_t kCeiling = 0x7e800000; // of what is encoded: 2^126
  using Word = typename WordOfBits<kBits>::type;
  static constexpr Word kZeros = 0x8000;      // in a word of 4 bits: code 0 is zero
  static constexpr float kNoUnit = 0x1p-100f; // which can still be divided by
  struct Summary {
    uint32_t low, high; // bits of the least and of the largest number
  };

  struct Steps {
    uint32_t low;
    int shift;

    COSMIC_METHOD static Steps of(Word word) {
      if constexpr (kBits == 4) {
        const uint32_t kept = word & (uint32_t)(Word)~kZeros;
        const uint32_t marked = kept | 0x10000u; // a word of zero is a block of zeros
        const int shift = __builtin_ctz(marked);
        return {(marked & (marked - 1) & 0xffffu) << 16, kept ? shift + 17 : 17};
      } else {
        return {word & ~31u, word ? (int)(word & 31u) : 5};
      }
    }
    COSMIC_METHOD Word word() const {
      if constexpr (kBits == 4) return (Word)(low >> 16 | 1u << (shift - 17));
      return (Word)(low | (uint32_t)shift);
    }
    COSMIC_METHOD static Steps fitting(Summary range) {
      const uint32_t r = (range.high - range.low) / (kTop - 1);
      int s = 32 - __builtin_clz(r | 1u);
      if (s < kLeastShift) s = kLeastShift;
      if (s <= 23) return {range.low >> s << s, s};
      const uint32_t over = (range.high + 0x7fffff) >> 23; // binades of max, rounded up
      return {over > kTop ? (over - kTop) << 23 : 0, 23};
    }
    // Of the numbers beside zeros.
    COSMIC_METHOD static Steps above_zero(Summary range) {
      const uint32_t r = (range.high - range.low) / (kTop - 2);
      int s = 32 - __builtin_clz(r | 1u);
      if (s < kLeastShift) s = kLeastShift;
      if (s > 23) return fitting({0, range.high});
      const uint32_t least = range.low >> s;
      return {least ? (least - 1) << s : 0, s};
    }
  };

  struct Reader {
    Codes<kBits> codes;
    I32 low;
    int shift;
    F32 levels, units; // 4 bits: the sixteen values, and their denominators

    F32 decay;

    COSMIC_METHOD Reader(const Codes<kBits> &codes, Word word, const BlockContext &context,
                         float decay)
        : codes(codes), decay(F32::splat(decay)) {
      const Steps steps = Steps::of(word);
      low = I32::splat((int32_t)steps.low);
      shift = steps.shift;
      if constexpr (kBits == 4) {
        levels = as_float(shift_left(lane_numbers(), shift) + low);
        if (word & kZeros) levels = without_first(levels, 0.0f);
        units = sqrt(levels) * F32::splat(context.v_scale_before) + F32::splat(context.eps);
        if (word & kZeros) units = without_first(units, kNoUnit);
        levels = levels * F32::splat(decay);
      }
    }
    template <int i> COSMIC_METHOD F32 at(Group<i> group) const {
      if constexpr (kBits == 4) return lookup(levels, codes.low(group));
      return decay * as_float(shift_left(codes.alone(group), shift) + low);
    }
    template <int i> COSMIC_METHOD F32 unit(Group<i> group, F32 scale, F32 eps) const {
      if constexpr (kBits == 4) return lookup(units, codes.low(group));
      return sqrt(as_float(shift_left(codes.alone(group), shift) + low)) * scale + eps;
    }
  };

  struct Statistics {
    I32 low = I32::splat(-1), high = I32::splat(0);
    COSMIC_METHOD void see(F32 x) {
      low = unsigned_min(low, as_int(x));
      high = unsigned_max(high, as_int(x));
    }
    COSMIC_METHOD Summary summary() const {
      return {reduce_unsigned_min(low), reduce_unsigned_max(high)};
    }
  };
  // above every number is a NaN, whatever its sign
  COSMIC_METHOD static bool ordinary(Summary range) { return range.high <= kCeiling; }
  COSMIC_METHOD static float padding(const float *values) { return values[0]; }
  COSMIC_METHOD static float mend(float value, float before) {
    const float kept = __builtin_isfinite(value) ? value : before;
    if (!(kept > 0)) return 0; // -0, whose bits are above every number's
    return kept < float_of(kCeiling) ? kept : float_of(kCeiling);
  }

  COSMIC_METHOD static I32 lane_numbers() {
    alignas(64) static const int32_t numbers[kLanes] = {0, 1, 2,  3,  4,  5,  6,  7,
                                                        8, 9, 10, 11, 12, 13, 14, 15};
    return I32::load(numbers);
  }

  COSMIC_METHOD static Word encode(const float *values, Summary range,
                                   const BlockContext & /*context*/, uint32_t key,
                                   Codes<kBits> &codes) {
    if (kBits == 4 && __builtin_expect((range.low == 0) & (range.high > 0), 0))
      return encode_with_zeros(values, range, key, codes);
    const Steps steps = Steps::fitting(range);
    if (__builtin_expect(steps.low > range.low, 0))
      put_all<true>(values, steps, key, codes);
    else
      put_all<false>(values, steps, key, codes);
    return steps.word();
  }

private:
  COSMIC_METHOD static F32 without_first(F32 table, float first) {
    return where_greater(F32::splat(1.0f), COSMIC_TARGET::lane_numbers<float>(), F32::splat(first),
                         table);
  }

  COSMIC_CALL static Word encode_with_zeros(const float *values, Summary range, uint32_t key,
                                            Codes<kBits> &codes) {
    range.low = least_above_zero(values);
    const Steps steps = Steps::above_zero(range);
    const I32 low = I32::splat((int32_t)steps.low);
    // in a block that reaches down to 0 a small number is rounded to zero or to the first level
    const I32 least = I32::splat((int32_t)(steps.low ? steps.low + (1u << steps.shift) : 0));
    const RandomBits random(key, steps.shift);
    for_each_group([&](auto group) COSMIC_LAMBDA {
      constexpr int i = decltype(group)::index;
      I32 x = as_int(F32::load(values + i * kLanes));
      x = max(zero_where_zero(x, max(x, least)), low);
      codes.put_above(group, shift_right(x + random.of(i), steps.shift));
    });
    codes.less(steps.low >> steps.shift);
    return steps.word() | kZeros;
  }

  template <bool kClamp> COSMIC_METHOD static void put_all(const float *values, const Steps &steps,
                                                           uint32_t key, Codes<kBits> &codes) {
    const I32 low = I32::splat((int32_t)steps.low);
    const RandomBits random(key, steps.shift);
    for_each_group([&](auto group) COSMIC_LAMBDA {
      constexpr int i = decltype(group)::index;
      I32 x = as_int(F32::load(values + i * kLanes));
      if (kClamp) x = max(x, low);
      codes.put_above(group, shift_right(x + random.of(i), steps.shift));
    });
    codes.less(steps.low >> steps.shift); // a multiple of 2^shift: taken away once for all
  }
};

} // namespace cosmic::COSMIC_TARGET
