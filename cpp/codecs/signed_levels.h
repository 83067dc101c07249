// Signed integers under one scale a block, rounded stochastically or to nearest: what `u4` and `q8`
// share. A state rounds stochastically, gradients on a wire do either.
//   L = 2^(bits-1) - 1      scale = bf16 of absmax / L, rounded up      x ~ scale (code - L - 1)
//   code = floor(x / scale + L + 1 + r), r uniform in [0, 1) from the counter: unbiased; or r = 1/2
// Codes of 8 bits in update units are the integers themselves, in two's complement: x ~ scale code.
// That saves a subtraction, and a step in cache is nothing but instructions.
// A block whose largest magnitude is below 2^-100 is stored as zeros: its inverse would overflow.
// One word a block: the scale's upper 16 bits.
#pragma once

#include "codecs/blockwise.h"

namespace cosmic::COSMIC_TARGET {

constexpr uint32_t kLeastAbsmax = 27u << 23; // the bits of 2^-100

// What is added before the fraction is dropped: `above<k>(base).of(group)` is base + r, where base
// lies in [2^k, 2^(k + 1)).
struct Stochastically {
  uint32_t key;
  template <int k> COSMIC_METHOD RandomAbove<k> above(float base) const {
    return RandomAbove<k>(key, base);
  }
};
struct ToNearest {
  struct Half {
    F32 sum;
    COSMIC_METHOD F32 of(int /*group*/) const { return sum; }
  };
  template <int k> COSMIC_METHOD Half above(float base) const { return {F32::splat(base + 0.5f)}; }
};

template <int kBitsOfCode, bool kUnits> struct SignedLevels {
  static constexpr int kBits = kBitsOfCode;
  static constexpr bool kUpdateUnits = kUnits, kFewUnits = false, kWholeLevels = kUnits;
  static constexpr bool kCompletes = false, kOpensAhead = false;
  static constexpr bool kTwosComplement = kBits == 8 && kUnits;
  static constexpr int kZero = 1 << (kBits - 1); // the code of 0
  using Word = uint16_t;
  using Summary = uint32_t; // the bits of the largest magnitude

  COSMIC_METHOD static F32 integers() { // 0 .. 15 less kZero
    alignas(64) static const float levels[kLanes] = {
        0.f - kZero,  1.f - kZero,  2.f - kZero,  3.f - kZero, 4.f - kZero,  5.f - kZero,
        6.f - kZero,  7.f - kZero,  8.f - kZero,  9.f - kZero, 10.f - kZero, 11.f - kZero,
        12.f - kZero, 13.f - kZero, 14.f - kZero, 15.f - kZero};
    return F32::load(levels);
  }

  struct Reader {
    Codes<kBits> codes;
    float level;

    COSMIC_METHOD Reader(const Codes<kBits> &codes, Word word, const BlockContext & /*context*/,
                         float decay)
        : codes(codes), level(float_of((uint32_t)word << 16) * decay) {
      if constexpr (kBits == 4 && kLookupIsDear) // in two's complement
        this->codes.rows[0] = codes.rows[0] ^ I32::splat((int32_t)0x88888888);
    }
    template <int i> COSMIC_METHOD F32 whole_at(Group<i> group) const {
      if constexpr (kBits == 4 && !kLookupIsDear) return lookup(integers(), codes.low(group));
      if constexpr (kBits == 4 || kTwosComplement) return to_float(codes.signed_alone(group));
      return to_float(codes.alone(group)) - F32::splat((float)kZero);
    }
    template <int i> COSMIC_METHOD F32 at(Group<i> group) const {
      return whole_at(group) * F32::splat(level);
    }
  };

  struct Statistics {
    I32 top = I32::splat(0);
    COSMIC_METHOD void see(F32 x) { top = unsigned_max(top, as_int(abs(x))); }
    COSMIC_METHOD Summary summary() const { return reduce_unsigned_max(top); }
  };
  COSMIC_METHOD static bool ordinary(Summary top) { return top < kInfinityBits; }
  COSMIC_METHOD static float padding(const float * /*values*/) { return 0; }
  COSMIC_METHOD static float mend(float value, float before) {
    return __builtin_isfinite(value) ? value : before;
  }

  COSMIC_METHOD static Word encode(const float *values, Summary top,
                                   const BlockContext & /*context*/, uint32_t key,
                                   Codes<kBits> &codes) {
    return encode_rounded(values, top, Stochastically{key}, codes);
  }
  template <class Rounding> COSMIC_METHOD static Word
  encode_rounded(const float *values, Summary top, Rounding rounding, Codes<kBits> &codes) {
    // a little more than absmax / L, so that no value lies above the top level
    const float wanted = float_of(top) * (1.000001f / (float)(kZero - 1));
    const uint32_t word = top < kLeastAbsmax ? 0 : (bits_of(wanted) + 0xffff) >> 16;
    const F32 inverse = F32::splat(word ? 1.0f / float_of(word << 16) : 0.0f);
    if constexpr (kBits == 4)
      put_pairs(values, inverse, rounding, codes);
    else
      put_each(values, inverse, rounding, codes);
    return (Word)word;
  }

private:
  // 192 + kZero + x / scale + r lies between 2^7 and its double: the code is the lower four bits of
  // the float's upper half, above a constant. Two groups' halves make one number.
  template <class Rounding> COSMIC_METHOD static void
  put_pairs(const float *values, F32 inverse, Rounding rounding, Codes<kBits> &codes) {
    constexpr float base = 192.0f + kZero;
    const auto above = rounding.template above<7>(base);
    const auto place = [&](int i) COSMIC_LAMBDA {
      return as_int(F32::load(values + i * kLanes) * inverse + above.of(i));
    };
    const auto pair = [&](int i) COSMIC_LAMBDA { return upper_halves(place(i), place(i + 4)); };
    I32 row = pair(3);
    row = shift_left<4>(row) + pair(2);
    row = shift_left<4>(row) + pair(1);
    row = shift_left<4>(row) + pair(0);
    // 192 without its lower bits, under its exponent
    codes.rows[0] = row;
    codes.less(0x4340u);
  }
  template <class Rounding> COSMIC_METHOD static void
  put_each(const float *values, F32 inverse, Rounding rounding, Codes<kBits> &codes) {
    // 1.5 2^k + x / scale + r lies between 2^k and its double, so that the code follows the
    // exponent: at once, with kZero in it, or a bit later, without
    constexpr int exponent = kBits + kTwosComplement;
    constexpr float base = (float)(3 << (exponent - 1));
    const auto above = rounding.template above<exponent>(base);
    for_each_group([&](auto group) COSMIC_LAMBDA {
      constexpr int i = decltype(group)::index;
      const F32 place = F32::load(values + i * kLanes) * inverse + above.of(i);
      codes.template put<23 - exponent>(group, as_int(place));
    });
  }
};

} // namespace cosmic::COSMIC_TARGET
