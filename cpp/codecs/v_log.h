// Numbers >= 0 as steps between their logarithms: `vlog2` to `vlog8`, the "1Q" of TurboAdam. Of a
// block, with L = 2^bits levels:
//   lo, hi = ln of the least and of the largest number, in half precision and rounded outward (lo
//            to nearest where they are one number), at most 88.6875
//   level k = exp(lo + k h),  h = (hi - lo) / (L - 1)
//   p = (x - level i) / (level i+1 - level i),  i the level under x
//   code = floor(i + p + r),  r uniform in [0, 1) from the counter: unbiased in x itself
// Numbers below 2^-126 count as that. Of a geometric series, level i / (level i+1 - level i) is the
// same for every i, so p = x slope i - c with c = 1 / (exp(h) - 1) and slope i = c / level i: one
// lookup, no division. Which level is under x a guess at the logarithm tells, that is never below
// it: i + p is taken for the level under the guessed one, too, the function is concave, and the
// smaller is right. Where levels are a tenth of a binade apart or more, float bits are guess
// enough, being at most 0.0863 binades off; else there is a cubic of them, at most 2e-3 off. Where
// more than two levels are as close as that, p is off by 5e-7 of x at most. Word of a block: lo in
// the lower half, hi in the upper. A word of 0, as in fresh state, is a block of 1e-30; a block of
// ones has a lo of -0.
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
  static constexpr bool kWholeLevels = false, kCompletes = true;
  static constexpr bool kOpensAhead = kOneTable;
  static constexpr int kTop = (1 << kBits) - 1;
  static constexpr uint32_t kLeast = 0x00800000u;       // bits of 2^-126
  static constexpr uint32_t kLargest = 0x7f7fffffu;     // of the largest float
  static constexpr uint32_t kFresh = 0xd451d451u;       // both ends the half next to ln 1e-30
  static constexpr float kLargestLog = 88.6875f;        // what a float holds the exponential of
  static constexpr uint32_t kLeastOfHalf = 0x38800000u; // bits of 2^-14, the least normal half
  static constexpr int kUpper = kLanes / 2;
  static_assert(kStageBlocks <= kUpper, "both ends of each block have a lane");
  // Of plain blocks, all of whose slopes are floats.
  static constexpr float kPlainStep = 0.1f, kPlainLow = -80.0f, kPlainHigh = 20.0f;
  using Word = uint32_t;

  // The ends of a block's levels as logarithms.
  struct Ends {
    float low, high;

    COSMIC_METHOD static Ends of(Word word) {
      word = word ? word : kFresh;
      return {float_of_half(word & 0xffffu), float_of_half(word >> 16)};
    }
    COSMIC_METHOD Octaves first() const { return first_of(low); }
    COSMIC_METHOD Octaves step() const { return step_of(high - low); }

    // in octaves, log2(e) being 12 bits of it and the rest
    template <class Real> COSMIC_METHOD static OctavesOf<Real> first_of(Real low) {
      return OctavesOf<Real>::of(low, kLog2E, kLog2ERest);
    }
    template <class Real> COSMIC_METHOD static OctavesOf<Real> step_of(Real range) {
      return OctavesOf<Real>::of(range, kPart, kPartRest);
    }

  private:
    static constexpr double kExact = 1.4426950408889634, kExactPart = kExact / kTop;
    static constexpr float kLog2E = 0x1.714p0f, kLog2ERest = (float)(kExact - kLog2E);
    static constexpr double kUnit = 0x1p-11 / (kTop + 1); // of 12 bits of kExactPart
    static constexpr float kPart = (float)((double)(int)(kExactPart / kUnit) * kUnit);
    static constexpr float kPartRest = (float)(kExactPart - kPart);
  };

  // Logarithms as halves: those of least numbers in the lower half of the lanes, those of the
  // largest beside them.
  COSMIC_METHOD static I32 halves_of(F32 logs) {
    alignas(64) static const int32_t up[kLanes] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1};
    alignas(64) float twice[2 * kLanes];
    logs.store(twice);
    logs.store(twice + kLanes);
    const F32 others = F32::load(twice + kUpper);
    const I32 magnitude = as_int(logs) & I32::splat(0x7fffffff);
    if (__builtin_expect(reduce_unsigned_min(magnitude) < kLeastOfHalf, 0))
      return halves_one_by_one(twice);
    const I32 negative = shift_right<31>(as_int(logs)), away = I32::load(up) ^ negative;
    const I32 outward = (I32::splat(0) - away) & I32::splat(0x1fff);
    const I32 nearest = I32::splat(0xfff) + (shift_right<13>(magnitude) & I32::splat(1));
    const I32 addend = as_int(
        where_greater(abs(logs - others), F32::splat(0.0f), as_float(outward), as_float(nearest)));
    return (shift_right<13>(magnitude + addend) - I32::splat(112 << 10)) | shift_left<15>(negative);
  }
  COSMIC_CALL static I32 halves_one_by_one(const float *twice) {
    alignas(64) int32_t halves[kLanes];
    for (int k = 0; k < kLanes; ++k) {
      const Toward outward = k < kUpper ? Toward::minus_infinity : Toward::plus_infinity;
      const bool one = twice[k] == twice[k + kUpper];
      halves[k] = (int32_t)half_of_float(twice[k], one ? Toward::nearest : outward);
    }
    return I32::load(halves);
  }
  COSMIC_METHOD static F32 floats_of_halves(I32 halves) {
    const I32 sign = shift_left<16>(halves & I32::splat(0x8000));
    return as_float(sign | shift_left<13>(halves & I32::splat(0x7fff))) * F32::splat(0x1p112f);
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
    COSMIC_METHOD Table under(F32 numerator) const { // over each
      if constexpr (kOneTable) return {numerator / low, low};
      return {F32::splat(1.0f) / low, numerator / high};
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
        : Reader(codes, open(word, context, decay)) {}

    struct Opened {
      Table levels;
      F32 units;
    };
    COSMIC_METHOD Reader(const Codes<kBits> &codes, const Opened &opened)
        : codes(codes), levels(opened.levels), units(opened.units) {}
    COSMIC_METHOD static Opened open(Word word, const BlockContext &context, float decay) {
      const Ends ends = Ends::of(word);
      Opened out;
      out.levels = Table::of(ends.first(), ends.step());
      if constexpr (kOneTable)
        out.units =
            sqrt(out.levels.low) * F32::splat(context.v_scale_before) + F32::splat(context.eps);
      else
        out.units = out.levels.high;
      out.levels.scale(decay);
      return out;
    }
    template <int i> COSMIC_METHOD F32 at(Group<i> group) const {
      return levels.at(codes.low(group));
    }
    template <int i> COSMIC_METHOD F32 unit(Group<i> group, F32 scale, F32 eps) const {
      if constexpr (kOneTable) return look(units, codes.low(group));
      return sqrt(Table{levels.low, units}.at(codes.low(group))) * scale + eps;
    }
  };

  struct Summary {
    uint32_t low, high; // bits of the least and of the largest number
  };
  // What is known of a block before its numbers are encoded.
  struct Completed {
    Word word;
    bool plain;           // the guess is of float bits alone, no number has to be scaled or clamped
    float scale, binades; // of numbers, so that slopes are floats; its logarithm
    float c, ratio;       // of two levels
    float first, a_step;  // in octaves; steps an octave
    float offset, of_bits; // of the guess in plain blocks
    Table levels, slopes;  // of scaled numbers
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

  // Chains of dependent operations: those of all blocks together, each in a lane or two, and then
  // one block's beside the other's.
  COSMIC_METHOD static void complete(const Summary *of, Completed *blocks, int count) {
    alignas(64) int32_t least_and_largest[kLanes] = {};
    for (int k = 0; k < count; ++k) {
      least_and_largest[k] = (int32_t)of[k].low;
      least_and_largest[kUpper + k] = (int32_t)of[k].high;
    }
    const F32 one = F32::splat(1.0f), zero = F32::splat(0.0f);
    const I32 bits =
        unsigned_min(unsigned_max(I32::load(least_and_largest), I32::splat((int32_t)kLeast)),
                     I32::splat((int32_t)kLargest));
    const I32 halves = halves_of(min(natural_log(as_float(bits)), F32::splat(kLargestLog)));
    alignas(64) int32_t words[kLanes];
    alignas(64) float ends[kLanes + kUpper];
    halves.store(words);
    zero.store(ends + kUpper);
    floats_of_halves(halves).store(ends);
    const F32 low = F32::load(ends), high = F32::load(ends + kUpper);
    const LaneOctaves first = Ends::first_of(low), step = Ends::step_of(high - low);
    const F32 less_1 = exp2_less_1(step), steps = step.coarse + step.fine;
    // of one level there are no steps
    const F32 c = where_greater(steps, zero, one / less_1, zero);
    const F32 a_step = where_greater(steps, zero, one / steps, zero);
    const F32 start = first.coarse + first.fine;

    // log2 of 1 + f is less than 0.08608 above f: the guess is never less than that. Half a step
    // less, for it is rounded to nearest
    const F32 offset = (F32::splat((float)(0.0862 - 127.0)) - start) * a_step - F32::splat(0.5f);
    alignas(64) float numbers[9][kLanes];
    const F32 all[9] = {first.coarse, first.fine, step.coarse, step.fine, c,
                        less_1 + one, start,      a_step,      offset};
    for (int i = 0; i < 9; ++i) all[i].store(numbers[i]);
    for (int k = 0; k < count; ++k) {
      Completed &block = blocks[k];
      const Word word = (Word)words[k] | (Word)words[kUpper + k] << 16;
      block.word = word ? word : 0x8000u;
      const Octaves first_level = {numbers[0][k], numbers[1][k]};
      const Octaves distance = {numbers[2][k], numbers[3][k]};
      block.plain = (distance.coarse >= kPlainStep) & (ends[k] >= kPlainLow) &
                    (ends[kUpper + k] <= kPlainHigh);
      const bool scaled = !block.plain & (ends[kUpper + k] < 32.0f);
      block.scale = scaled ? 0x1p48f : 1.0f;
      block.binades = scaled ? 48.0f : 0.0f;
      block.c = numbers[4][k];
      block.ratio = numbers[5][k];
      block.first = numbers[6][k];
      block.a_step = numbers[7][k];
      block.offset = numbers[8][k];
      block.of_bits = 0x1p-23f * block.a_step;
      block.levels = Table::of({first_level.coarse + block.binades, first_level.fine}, distance);
      block.slopes = block.levels.under(F32::splat(block.c));
    }
  }

  // The place of x from a level at or next to the one under it, by number in the low bits.
  COSMIC_METHOD static F32 place(const Completed &block, F32 x, F32 guess) {
    const F32 shifted = guess + F32::splat(kToInteger); // to nearest: in the low bits
    const F32 y = x * block.slopes.at(as_int(shifted));
    const F32 p = min(y, y * F32::splat(block.ratio) - F32::splat(1.0f)) - F32::splat(block.c);
    const F32 place = p + (shifted - F32::splat(kToInteger));
    return min(max(place, F32::splat(0.0f)), F32::splat((float)kTop));
  }
  COSMIC_METHOD static F32 plain_place(const Completed &block, F32 x) {
    return place(block, x,
                 to_float(as_int(x)) * F32::splat(block.of_bits) + F32::splat(block.offset));
  }
  // Of a block whose levels are near to each other, or far from one. log2 of m is a cubic in m,
  // within 6.4e-4, of which as much is added.
  COSMIC_CALL static void places(const Completed &block, const float *values, float *to) {
    constexpr float kOffset = (float)(-1.1536208391189575 + 7.5e-4 - 127.0);
    const F32 k0 = F32::splat(((kOffset - block.binades) - block.first) * block.a_step - 0.5f);
    const F32 k1 = F32::splat(2.047884225845337f * block.a_step);
    const F32 k2 = F32::splat(-1.051875114440918f * block.a_step);
    const F32 k3 = F32::splat(0.15824872255325317f * block.a_step);
    for (int at = 0; at < kBlock; at += kLanes) {
      const F32 x = F32::load(values + at) * F32::splat(block.scale);
      const I32 bits = as_int(x);
      const F32 m = as_float((bits & I32::splat(0x7fffff)) | I32::splat(0x3f800000));
      const F32 mantissa = ((k3 * m + k2) * m + k1) * m + k0;
      const F32 guess = to_float(bits) * F32::splat(block.of_bits) + mantissa;
      const F32 inside = min(max(guess, F32::splat(0.0f)), F32::splat((float)(kTop - 1)));
      place(block, x, inside).store(to + at);
    }
  }

  // above every number is a NaN, whatever its sign
  COSMIC_METHOD static bool ordinary(Summary summary) { return summary.high <= kLargest; }
  COSMIC_METHOD static float padding(const float *values) { return values[0]; }
  COSMIC_METHOD static float mend(float value, float before) {
    return __builtin_isfinite(value) ? value : before;
  }

  COSMIC_METHOD static Word encode(const float *values, const Completed &block,
                                   const BlockContext & /*context*/, uint32_t key,
                                   Codes<kBits> &codes) {
    // between 2^bits and its double, so that the code is what follows the exponent
    constexpr float base = (float)(kTop + 1);
    const RandomAbove<kBits> random(key, base);
    const auto put_all = [&](auto place_of) COSMIC_LAMBDA {
      for_each_group([&](auto group) COSMIC_LAMBDA {
        constexpr int i = decltype(group)::index;
        codes.template put<23 - kBits>(group, as_int(place_of(i * kLanes) + random.of(i)));
      });
    };
    if (__builtin_expect(block.plain, 1)) {
      put_all([&](int at) COSMIC_LAMBDA { return plain_place(block, F32::load(values + at)); });
    } else {
      alignas(64) float found[kBlock];
      places(block, values, found);
      put_all([&](int at) COSMIC_LAMBDA { return F32::load(found + at); });
    }
    return block.word;
  }

  // The units of one table's levels, from what encoding knows of them.
  COSMIC_METHOD static F32 units_of(const Completed &block, float scale, float eps) {
    const F32 levels = block.levels.low * F32::splat(1.0f / block.scale); // the bits of a Reader's
    return sqrt(levels) * F32::splat(scale) + F32::splat(eps);
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
