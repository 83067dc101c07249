// Numbers >= 0 as steps between their logarithms: `vlog2` to `vlog8`, the "1Q" of TurboAdam. Of a
// block, with L = 2^bits levels:
//   lo, hi = ln of the least and of the largest number, in half precision and rounded outward (lo
//            to nearest where they are one number), at most 88.6875
//   level k = exp(lo + k h),  h = (hi - lo) / (L - 1)
//   p = (x - level i) / (level i+1 - level i),  i the level under x
//   code = floor(i + p + r),  r uniform in [0, 1) from the counter: unbiased in x itself
// Numbers below 2^-126 count as that. Of a geometric series, level i / (level i+1 - level i) is the
// same for every i, so p = x slope i - c with c = 1 / (exp(h) - 1) and slope i = c / level i: one
// lookup, no division. Which level is under x a cubic tells, that is never below the logarithm and
// at most 2e-3 of a binade above it. An average's numbers lie just under their old level most of
// the time, so i + p is taken for the level under that one, too: the function is concave, and the
// smaller is right. Where more than two levels are as close as that, it is off by 5e-7 of x at
// most. Word of a block: lo in the lower half, hi in the upper. A word of 0, as in fresh state, is
// a block of 1e-30; a block of ones has a lo of -0.
#pragma once

#if defined(COSMIC_TARGET) // the arithmetic, on lanes

#include "codecs/blockwise.h"
#include "codecs/elementary.h"

namespace cosmic::COSMIC_TARGET {

// A finite half; exact.
COSMIC_INLINE float float_of_half(uint32_t half) {
  return float_of((half & 0x8000u) << 16 | (half & 0x7fffu) << 13) * 0x1p112f;
}

enum class Toward { minus_infinity, plus_infinity, nearest };

// A half from a float of magnitude below 2^15.
COSMIC_INLINE uint32_t half_of_float(float x, Toward toward) {
  const bool negative = bits_of(x) >> 31, nearest = toward == Toward::nearest;
  const bool away = !nearest && (toward == Toward::plus_infinity) != negative; // from zero
  const uint32_t magnitude = bits_of(x) & 0x7fffffffu, sign = negative ? 0x8000u : 0;
  if (magnitude >= 0x38800000u) { // 2^-14: 13 bits less, and a bias of 15 for 127
    const uint32_t parity = magnitude >> 13 & 1;
    const uint32_t addend = nearest ? 0xfffu + parity : away ? 0x1fffu : 0;
    return sign | (((magnitude + addend) >> 13) - (112u << 10));
  }
  const float units = float_of(magnitude) * 0x1p24f; // of the smallest half
  const auto kept = (uint32_t)units;
  const float rest = units - (float)kept, limit = nearest ? 0.5f : away ? 0.0f : 1.0f;
  const bool tie = nearest && rest == limit && (kept & 1);
  return sign | (kept + (rest > limit || tie));
}

template <int kBitsOfCode> struct LogLevels {
  static constexpr int kBits = kBitsOfCode;
  static constexpr bool kUpdateUnits = false;
  static constexpr bool kOneTable = kBits <= 4, kFewUnits = kOneTable;
  static constexpr bool kWholeLevels = false;
  static constexpr int kTop = (1 << kBits) - 1;
  static constexpr uint32_t kLeast = 0x00800000u;   // bits of 2^-126
  static constexpr uint32_t kLargest = 0x7f7fffffu; // of the largest float
  static constexpr uint32_t kFresh = 0xd451d451u;   // both ends the half next to ln 1e-30
  static constexpr float kLargestLog = 88.6875f;    // what a float holds the exponential of
  using Word = uint32_t;

  // The ends of a block's levels as logarithms.
  struct Ends {
    float low, high;

    COSMIC_METHOD static Ends of(Word word) {
      word = word ? word : kFresh;
      return {float_of_half(word & 0xffffu), float_of_half(word >> 16)};
    }
    // in octaves, log2(e) being 12 bits of it and the rest
    COSMIC_METHOD Octaves first() const { return Octaves::of(low, kLog2E, kLog2ERest); }
    COSMIC_METHOD Octaves step() const { return Octaves::of(high - low, kPart, kPartRest); }

  private:
    static constexpr double kExact = 1.4426950408889634, kExactPart = kExact / kTop;
    static constexpr float kLog2E = 0x1.714p0f, kLog2ERest = (float)(kExact - kLog2E);
    static constexpr double kUnit = 0x1p-11 / (kTop + 1); // of 12 bits of kExactPart
    static constexpr float kPart = (float)((double)(int)(kExactPart / kUnit) * kUnit);
    static constexpr float kPartRest = (float)(kExactPart - kPart);
  };

  COSMIC_METHOD static float log_of(uint32_t bits) {
    bits = bits > kLeast ? bits : kLeast;
    const float x = natural_log(float_of(bits < kLargest ? bits : kLargest));
    return x < kLargestLog ? x : kLargestLog;
  }
  COSMIC_METHOD static Word word_for(uint32_t least, uint32_t largest) {
    const float low = log_of(least), high = log_of(largest);
    const bool one = low == high;
    const uint32_t lower = half_of_float(low, one ? Toward::nearest : Toward::minus_infinity);
    const uint32_t upper = half_of_float(high, one ? Toward::nearest : Toward::plus_infinity);
    const Word word = lower | upper << 16;
    return word ? word : 0x8000u;
  }

  // Powers of two by code, first + code * step octaves: one table of them, which repeats, or tables
  // of two factors by the halves of a code.
  struct Table {
    F32 low, high;

    COSMIC_METHOD static Table of(Octaves first, Octaves step) {
      Table out;
      if constexpr (kOneTable) {
        out.low = exp2_of_progression(first, step, lanes<1>(kTop));
      } else {
        out.low = exp2_of_progression({0.0f, 0.0f}, step, lanes<1>(15));
        out.high = exp2_of_progression(first, step, lanes<16>(kTop >> 4));
      }
      return out;
    }
    COSMIC_METHOD void scale(float factor) {
      F32 &scaled = kOneTable ? low : high;
      scaled = scaled * F32::splat(factor);
    }
    COSMIC_METHOD F32 at(I32 code) const {
      if constexpr (kOneTable) return look(low, code);
      return look(high, shift_right<4>(code)) * lookup(low, code);
    }
  };
  // Of what is kept by code, or by its upper half; bits above these may hold anything.
  COSMIC_METHOD static F32 look(F32 table, I32 index) {
    return kBits == 4 || kBits == 8 ? lookup(table, index) : lookup_periodic(table, index);
  }
  // The lanes' numbers times a factor, over and over up to `last`, a power of two less one.
  template <int kFactor> COSMIC_METHOD static F32 lanes(int last) {
    alignas(64) static const int32_t numbers[kLanes] = {0, 1, 2,  3,  4,  5,  6,  7,
                                                        8, 9, 10, 11, 12, 13, 14, 15};
    return to_float(I32::load(numbers) & I32::splat(last)) * F32::splat((float)kFactor);
  }

  struct Reader {
    Codes<kBits> codes;
    Table levels;
    F32 units; // of one table

    COSMIC_METHOD Reader(const Codes<kBits> &codes, Word word, const BlockContext &context,
                         float decay)
        : codes(codes) {
      const Ends ends = Ends::of(word);
      levels = Table::of(ends.first(), ends.step());
      if constexpr (kOneTable)
        units = sqrt(levels.low) * F32::splat(context.v_scale_before) + F32::splat(context.eps);
      else
        units = levels.high;
      levels.scale(decay);
    }
    template <int i> COSMIC_METHOD F32 at(Group<i> group) const {
      return levels.at(codes.low(group));
    }
    template <int i> COSMIC_METHOD F32 unit(Group<i> group, F32 scale, F32 eps) const {
      if constexpr (kOneTable) return look(units, codes.low(group));
      return sqrt(Table{levels.low, units}.at(codes.low(group))) * scale + eps;
    }
  };

  // Places of numbers among the levels. Numbers are scaled so that slopes are floats.
  struct Places {
    Table slopes;
    float scale, c, c_and_1, ratio;
    float cubic[4], exponent; // of the guess at a place

    COSMIC_METHOD explicit Places(Ends ends) {
      const Octaves first = ends.first(), step = ends.step();
      const bool some = ends.high > ends.low, small = ends.high < 32.0f;
      const float binades = small ? 48.0f : 0.0f;
      scale = small ? 0x1p48f : 1.0f;
      const float less_1 = exp2_less_1(step);
      c = some ? 1.0f / less_1 : 0.0f;
      c_and_1 = c + 1.0f;
      ratio = less_1 + 1.0f; // of two levels
      slopes = Table::of({-first.coarse - binades, -first.fine}, -step);
      slopes.scale(c);
      // log2(1 + f) ~ f + a cubic in 1 + f, within 6.4e-4. The guess is 7.5e-4 more, and half a
      // step less, for it is rounded to nearest
      const float a_step = some ? 1.0f / (step.coarse + step.fine) : 0.0f;
      constexpr float kOffset = (float)(-1.1536208391189575 + 7.5e-4 - 127.0);
      cubic[0] = ((kOffset - binades) - (first.coarse + first.fine)) * a_step - 0.5f;
      cubic[1] = 2.047884225845337f * a_step;
      cubic[2] = -1.051875114440918f * a_step;
      cubic[3] = 0.15824872255325317f * a_step;
      exponent = 0x1p-23f * a_step;
    }

    COSMIC_METHOD F32 of(F32 x) const {
      x = x * F32::splat(scale);
      const I32 bits = as_int(x);
      const F32 m = as_float((bits & I32::splat(0x7fffff)) | I32::splat(0x3f800000));
      const auto k = [&](int i) { return F32::splat(cubic[i]); };
      const F32 mantissa = ((k(3) * m + k(2)) * m + k(1)) * m + k(0);
      const F32 guess = to_float(bits) * F32::splat(exponent) + mantissa;
      const F32 below = min(max(guess, F32::splat(0.0f)), F32::splat((float)(kTop - 1)));
      const F32 shifted = below + F32::splat(0x1p23f); // to nearest: an integer in the low bits
      const F32 y = x * slopes.at(as_int(shifted));
      const F32 p = min(y - F32::splat(c), y * F32::splat(ratio) - F32::splat(c_and_1));
      const F32 place = p + (shifted - F32::splat(0x1p23f));
      return min(max(place, F32::splat(0.0f)), F32::splat((float)kTop));
    }
  };

  // The word is made here and the tables of places in `encode`: two chains of dependent operations,
  // each beside other work, take less time than one.
  struct Summary {
    uint32_t high; // bits of the largest number
    Word word;
  };
  struct Statistics {
    I32 low = I32::splat(-1), high = I32::splat(0);
    COSMIC_METHOD void see(F32 x) {
      low = unsigned_min(low, as_int(x));
      high = unsigned_max(high, as_int(x));
    }
    COSMIC_METHOD Summary summary() const {
      const uint32_t largest = reduce_unsigned_max(high);
      return {largest, word_for(reduce_unsigned_min(low), largest)};
    }
  };
  // above every number is a NaN, whatever its sign
  COSMIC_METHOD static bool ordinary(Summary summary) { return summary.high <= kLargest; }
  COSMIC_METHOD static float padding(const float *values) { return values[0]; }
  COSMIC_METHOD static float mend(float value, float before) {
    return __builtin_isfinite(value) ? value : before;
  }

  COSMIC_METHOD static Word encode(const float *values, Summary summary,
                                   const BlockContext & /*context*/, uint32_t key,
                                   Codes<kBits> &codes) {
    const Places places(Ends::of(summary.word));
    // between 2^bits and its double, so that the code is what follows the exponent
    constexpr float base = (float)(kTop + 1);
    const RandomAbove<kBits> random(key, base);
    for_each_group([&](auto group) COSMIC_LAMBDA {
      constexpr int i = decltype(group)::index;
      const F32 place = places.of(F32::load(values + i * kLanes)) + random.of(i);
      codes.template put<23 - kBits>(group, as_int(place));
    });
    return summary.word;
  }
};

using VLog2 = Blockwise<LogLevels<2>>;
using VLog3 = Blockwise<LogLevels<3>>;
using VLog4 = Blockwise<LogLevels<4>>;
using VLog6 = Blockwise<LogLevels<6>>;
using VLog8 = Blockwise<LogLevels<8>>;

} // namespace cosmic::COSMIC_TARGET

#else // what it says of itself

#include "parts/codec.h"

namespace cosmic::parts {

template <int kBits> CodecPart log_levels() {
  CodecPart part;
  part.name = "vlog" + std::to_string(kBits);
  part.second = {planes::codes(kBits),
                 {"scale", "float16", dlpack::kFloat, 16, PlaneOf::Each::block, 2}};
  return part;
}
inline CodecPart vlog2() { return log_levels<2>(); }
inline CodecPart vlog3() { return log_levels<3>(); }
inline CodecPart vlog4() { return log_levels<4>(); }
inline CodecPart vlog6() { return log_levels<6>(); }
inline CodecPart vlog8() { return log_levels<8>(); }

} // namespace cosmic::parts

#endif
