// A few levels around zero and none at it: what `u1` and `u2` share, in update units, and `m1` and
// `m2`, in those of the gradient.
//   L = 2^bits      step = bf16 of f RMS(x), to nearest, f = 1.596 (1 bit) or 0.996 (2 bits)
//   x ~ step (code - (L - 1) / 2)
//   code = floor(clamp(x / step + (L - 1) / 2, 0, L - 1) + r), r uniform in [0, 1) from the counter
// The factors f are those of the least mean square error for a normal distribution (Max, IRE
// Trans. Inf. Theory 6(1), 1960). Rounding is unbiased between the outer levels; what lies beyond
// them is clamped. In a block that is mended (blockwise.h), |x| is held to 2^60 first. RMS is over
// the block, its sum in a fixed order. Word of a block: the step's upper 16 bits.
#pragma once

#include "codecs/blockwise.h"

namespace cosmic::COSMIC_TARGET {

template <int kBitsOfCode, bool kUnits = true> struct Midrise {
  static constexpr int kBits = kBitsOfCode;
  static constexpr bool kUpdateUnits = kUnits, kFewUnits = false;
  static constexpr bool kWholeLevels = false, kCompletes = false, kOpensAhead = false;
  static constexpr int kLevels = 1 << kBits;
  static constexpr float kStepOfRms = kBits == 1 ? 1.596f : 0.996f;
  static constexpr float kLeastRms = 0x1p-60f, kLargestRms = 0x1p60f; // squares stay finite
  using Word = uint16_t;
  using Summary = float; // sum of squares

  struct Reader {
    Codes<kBits> codes;
    F32 levels; // repeat after kLevels

    COSMIC_METHOD Reader(const Codes<kBits> &codes, Word word, const BlockContext & /*context*/,
                         float decay)
        : codes(codes) {
      constexpr float middle = (kLevels - 1) / 2.0f;
      alignas(64) static const float places[kLanes] = {
          place(0) - middle,  place(1) - middle,  place(2) - middle,  place(3) - middle,
          place(4) - middle,  place(5) - middle,  place(6) - middle,  place(7) - middle,
          place(8) - middle,  place(9) - middle,  place(10) - middle, place(11) - middle,
          place(12) - middle, place(13) - middle, place(14) - middle, place(15) - middle};
      levels = F32::load(places) * F32::splat(float_of((uint32_t)word << 16) * decay);
    }
    template <int i> COSMIC_METHOD F32 at(Group<i> group) const {
      return lookup_periodic(levels, codes.low(group));
    }

  private:
    static constexpr float place(int lane) { return (float)(lane % kLevels); }
  };

  struct Statistics {
    F32 squares = F32::splat(0.0f);
    COSMIC_METHOD void see(F32 x) { squares = squares + x * x; }
    COSMIC_METHOD Summary summary() const { return reduce_add(squares); }
  };
  COSMIC_METHOD static bool ordinary(Summary squares) { return __builtin_isfinite(squares); }
  COSMIC_METHOD static float padding(const float * /*values*/) { return 0; }
  COSMIC_METHOD static float mend(float value, float before) {
    const float kept = __builtin_isfinite(value) ? value : before;
    return kept > kLargestRms ? kLargestRms : kept < -kLargestRms ? -kLargestRms : kept;
  }

  COSMIC_METHOD static Word encode(const float *values, Summary squares,
                                   const BlockContext &context, uint32_t key, Codes<kBits> &codes) {
    const float rms = __builtin_sqrtf(squares / (float)context.count);
    const uint32_t wanted = bits_of(kStepOfRms * rms);
    const uint32_t word = rms < kLeastRms ? 0 : (wanted + 0x7fff + (wanted >> 16 & 1)) >> 16;
    const F32 inverse = F32::splat(word ? 1.0f / float_of(word << 16) : 0.0f);
    const F32 middle = F32::splat((kLevels - 1) / 2.0f), zero = F32::splat(0.0f);
    const F32 last = F32::splat((float)(kLevels - 1));
    // between 2^bits and its double: the code is what follows the exponent
    const RandomAbove<kBits> random(key, (float)kLevels);
    for_each_group([&](auto group) COSMIC_LAMBDA {
      constexpr int i = decltype(group)::index;
      const F32 place = F32::load(values + i * kLanes) * inverse + middle;
      codes.template put<23 - kBits>(group, as_int(min(max(place, zero), last) + random.of(i)));
    });
    return (Word)word;
  }
};

} // namespace cosmic::COSMIC_TARGET
