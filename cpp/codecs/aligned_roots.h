// The square roots of numbers >= 0 as steps between their float bits, 8 bits, with a code for zero:
// `q8` of a second moment. A root is what the update divides by, so that decoding one takes no
// square root, and the rule has the new one anyway. Of a block, from its roots that are not zero,
// read as integers:
//   s  = bit length of (max - min) / 253, within [5, 20]
//   lo = (min rounded down to a multiple of 2^s) - 2^s; if s would pass 20, s = 20 and lo lies 255
//        steps under max, an eighth of a binade each: smaller roots are stored as lo + 2^s
//   code 0 is the root 0, and of it alone      code c: root ~ lo + (c << s), v ~ root^2
//   code = (x - lo + random) >> s, random uniform in [0, 2^s) from the counter
// Zeros do not stretch a block's steps. Neighbouring levels a < b lie in one binade, so that this
// is unbiased in the root; in its square it is not: with f = (x - a) / (b - a) the chance of b
// would have to be p = (x^2 - a^2) / (b^2 - a^2) = f - f (1 - f) (b - a) / (b + a). A block makes
// up for it at one step of n, by lot, with n = 2^(24 - s), but 128 at most: there the chance is
// f - n (f - p), which lies above 0. So rounding is unbiased in v over steps, most of which cost
// nothing.
// Word of a block: lo's bits, which end in 5 zeros, with s added. A word of 0 is a block of zeros.
#pragma once

#include "codecs/blockwise.h"

namespace cosmic::COSMIC_TARGET {

struct AlignedRoots {
  static constexpr int kBits = 8;
  static constexpr bool kUpdateUnits = false, kFewUnits = false;
  static constexpr bool kWholeLevels = false, kCompletes = false, kOpensAhead = false;
  static constexpr int kTop = 255, kLeastShift = 5, kMostShift = 20;
  static constexpr uint32_t kCeiling = 0x5f000000; // of a root: 2^63
  using Word = uint32_t;
  struct Summary {
    uint32_t low, high; // bits of the least and of the largest root
  };

  struct Steps {
    uint32_t low; // of code 0, were it not zero's own
    int shift;

    COSMIC_METHOD static Steps of(Word word) { return {word & ~31u, (int)(word & 31u)}; }
    COSMIC_METHOD Word word() const { return low | (uint32_t)shift; }
    COSMIC_METHOD static Steps fitting(Summary range) { // of roots that are not zero
      const uint32_t r = (range.high - range.low) / (kTop - 2);
      int s = 32 - __builtin_clz(r | 1u);
      if (s < kLeastShift) s = kLeastShift;
      if (s <= kMostShift) return {((range.low >> s) - 1) << s, s};
      const uint32_t top = (range.high + ((1u << kMostShift) - 1)) >> kMostShift;
      return {(top - kTop) << kMostShift, kMostShift};
    }
    COSMIC_METHOD uint32_t least() const { return low + (1u << shift); } // that is not zero
    COSMIC_METHOD int lots() const { return kMostShift + 4 - (shift > 17 ? shift : 17); } // 2^this
    COSMIC_METHOD bool draw(uint32_t lot) const { return lot >> (32 - lots()) == 0; }
  };

  struct Reader {
    Codes<kBits> codes;
    I32 low;
    int shift;
    F32 decay;

    COSMIC_METHOD Reader(const Codes<kBits> &codes, Word word, const BlockContext & /*context*/,
                         float decay)
        : codes(codes), decay(F32::splat(decay)) {
      const Steps steps = Steps::of(word);
      low = I32::splat((int32_t)steps.low);
      shift = steps.shift;
    }
    template <int i> COSMIC_METHOD F32 root(Group<i> group) const {
      const I32 code = codes.alone(group);
      return as_float(zero_where_zero(code, shift_left(code, shift) + low));
    }
    template <int i> COSMIC_METHOD F32 at(Group<i> group) const {
      const F32 r = root(group);
      return r * r * decay;
    }
    template <int i> COSMIC_METHOD F32 unit(Group<i> group, F32 scale, F32 eps) const {
      return root(group) * scale + eps;
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
  COSMIC_METHOD static bool ordinary(Summary range) { return range.high <= kCeiling; }
  COSMIC_METHOD static float padding(const float *values) { return values[0]; }
  COSMIC_METHOD static float mend(float root, float square_before) {
    const float kept = __builtin_isfinite(root) ? root : __builtin_sqrtf(square_before);
    if (!(kept > 0)) return 0; // -0, whose bits are above every number's
    return kept < float_of(kCeiling) ? kept : float_of(kCeiling);
  }

  COSMIC_METHOD static Word encode(const float *roots, Summary range, const BlockContext &context,
                                   uint32_t key, Codes<kBits> &codes) {
    const Steps steps = Steps::fitting(range);
    const uint32_t lot = context.random.tensor_key; // one of the tensor: a branch that is foreseen
    if (__builtin_expect(steps.draw(lot) | (range.low == 0) | (steps.least() > range.low), 0))
      return encode_with_care(roots, range, lot, key, codes);
    put_all<false, false>(roots, steps, key, codes);
    return steps.word();
  }

private:
  // Blocks with zeros or with more than 31 binades, and the steps that correct.
  COSMIC_CALL static Word encode_with_care(const float *roots, Summary range, uint32_t lot,
                                           uint32_t key, Codes<kBits> &codes) {
    if (range.high == 0) return 0;
    if (range.low == 0) range.low = least_above_zero(roots);
    const Steps steps = Steps::fitting(range);
    if (steps.draw(lot))
      put_corrected(roots, steps, key, codes);
    else if (steps.least() > range.low)
      put_all<true, true>(roots, steps, key, codes);
    else
      put_all<true, false>(roots, steps, key, codes);
    return steps.word();
  }

  // Zeros are taken for what code 0 would be, roots that are too small for code 1.
  template <bool kZeros, bool kSmall> COSMIC_METHOD static void
  put_all(const float *roots, const Steps &steps, uint32_t key, Codes<kBits> &codes) {
    const I32 low = I32::splat((int32_t)steps.low), least = I32::splat((int32_t)steps.least());
    const RandomBits random(key, steps.shift);
    for_each_group([&](auto group) COSMIC_LAMBDA {
      constexpr int i = decltype(group)::index;
      I32 x = as_int(F32::load(roots + i * kLanes));
      if (kSmall) x = zero_where_zero(x, max(x, least));
      if (kZeros) x = max(x, low);
      codes.put_above(group, shift_right(x + random.of(i), steps.shift));
    });
    codes.less(steps.low >> steps.shift);
  }

  // In floats of the binade [1, 2): x's mantissa and the levels around it.
  COSMIC_METHOD static void put_corrected(const float *roots, const Steps &steps, uint32_t key,
                                          Codes<kBits> &codes) {
    const I32 low = I32::splat((int32_t)steps.low), least = I32::splat((int32_t)steps.least());
    const float step = float_of((uint32_t)(steps.shift + 127 - 23) << 23); // 2^(s - 23)
    const F32 gap = F32::splat(step), strength = F32::splat((float)(1 << steps.lots()));
    const I32 whole = I32::splat((int32_t)(~0u << steps.shift));
    const RandomAbove<0> random(key, step);
    for_each_group([&](auto group) COSMIC_LAMBDA {
      constexpr int i = decltype(group)::index;
      I32 x = as_int(F32::load(roots + i * kLanes));
      x = max(zero_where_zero(x, max(x, least)), low);
      const I32 place = (x & I32::splat(0x7fffff)) | as_int(F32::splat(1.0f));
      const F32 at = as_float(place), a = as_float(place & whole), b = a + gap;
      const F32 drawn = random.of(i) - gap; // uniform in [0, gap)
      const F32 chance = (at - a) * ((a + b) - strength * (b - at));
      codes.put_alone(group, one_more_where_greater(chance, drawn * (a + b),
                                                    shift_right(x - low, steps.shift)));
    });
  }
};

} // namespace cosmic::COSMIC_TARGET
