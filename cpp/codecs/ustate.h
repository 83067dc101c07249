// `ustate`: an average of the gradient in update units, 2 bits; the coding of turboadam 0.2.0.
//   u = m_hat / (sqrt(v_hat) + eps), v as it is kept        r = u - mean, over 64 elements
//   code = floor(clamp(r / step + 1.5, 0, 3) + x), x uniform in [0, 1), antithetic: neighbours of a
//   pair have x and 1 - x
//   u ~ mean + step (code - mean of the codes)
// `step` is one number a tensor: `m_step_factor` times the root mean square of r, at the step
// before; the factor itself at first. Means are rounded to bf16, to nearest.
// Layout: plane 0, 32 bytes of codes a block; plane 1, two bf16 means a block: 2.25 bits an
// element.
#pragma once

#if defined(COSMIC_TARGET) // the arithmetic, on lanes

#include "codecs/packed.h"

namespace cosmic::COSMIC_TARGET {

struct UState : CodecTraits {
  static constexpr bool kPresent = true, kCompressed = true, kStaged = true, kUpdateUnits = true;
  static constexpr bool kMatrix = false, kPersistedUnits = true, kAddsUp = true;
  static constexpr bool kOpensAhead = true;
  static constexpr int kPlanes = 2;
  static constexpr int kMeanGroups = 4;      // of 64 elements
  static constexpr float kLargest = 0x1p10f; // far above what Adam's update can be
  using Summary = Nothing;
  static constexpr int64_t bytes(int plane, int64_t numel) {
    return blocks_of(numel) * (plane ? (int64_t)sizeof(uint32_t) : Codes<2>::kBytes);
  }

  Codes<2> codes;
  F32 levels[2]; // of either half; they repeat after four
  float *values; // of the block, waiting

  struct Opened {
    F32 levels[2];
  };

  COSMIC_METHOD UState(const Planes &planes, int64_t block, const BlockContext &context,
                       int /*slot*/, float decay, float *waiting)
      : UState(planes, block, open(planes, block, context, decay), waiting) {}
  COSMIC_METHOD UState(const Planes &planes, int64_t block, const Opened &opened, float *waiting)
      : codes(Codes<2>::load(codes_at(planes, block))), levels{opened.levels[0], opened.levels[1]},
        values(waiting) {}

  COSMIC_METHOD static Opened open(const Planes &planes, int64_t block, const BlockContext &context,
                                   float decay) {
    alignas(64) static const float places[kLanes] = {0, 1, 2, 3, 0, 1, 2, 3,
                                                     0, 1, 2, 3, 0, 1, 2, 3};
    const uint32_t word = *word_at(planes, block), sums = code_sums(codes_at(planes, block));
    Opened out;
    for (int half = 0; half < 2; ++half) {
      const float mean = float_of(half ? word & 0xffff0000u : word << 16);
      const int64_t count = elements(context, half);
      const float sum = (float)(half ? sums >> 16 : sums & 0xffffu);
      const float middle = count ? sum / (float)count : 0.0f;
      out.levels[half] = ((F32::load(places) - F32::splat(middle)) * F32::splat(context.m_before) +
                          F32::splat(mean)) *
                         F32::splat(decay * context.m_correction_before);
    }
    return out;
  }

  template <int i> COSMIC_METHOD void load(Group<i> group, F32 &out) {
    out = lookup_periodic(levels[i / kMeanGroups], codes.low(group));
  }
  template <int i> COSMIC_METHOD void store(Group<i>, const F32 &value) {
    value.store(values + i * kLanes);
  }
  template <bool kTail>
  COSMIC_METHOD Nothing measure(const Planes &, int64_t, const BlockContext &, int64_t) const {
    return {};
  }

  // Of a whole block's values in update units, as they come: the means that it is encoded about.
  struct Gathered {
    F32 sums[2] = {F32::splat(0.0f), F32::splat(0.0f)};

    template <int i> COSMIC_METHOD void see(Group<i>, F32 x) {
      sums[i / kMeanGroups] = sums[i / kMeanGroups] + x;
    }
    COSMIC_METHOD uint32_t means() const {
      return mean_of(sums[0], kBlock / 2) | mean_of(sums[1], kBlock / 2) << 16;
    }
  };

  // `values` are in update units by now. Returns lanes of the sum of r^2.
  COSMIC_METHOD static F32 encode(const Planes &planes, int64_t block, const BlockContext &context,
                                  int slot, float *values, Nothing) {
    if (context.count != kBlock)
      return keep(planes, block, context, slot, values, encoded<true>(values, context, slot));
    Gathered gathered;
    for_each_group([&](auto group) COSMIC_LAMBDA {
      gathered.see(group, F32::load(values + decltype(group)::index * kLanes));
    });
    return encode_about(planes, block, context, slot, values, gathered.means());
  }
  // Of a whole block whose means are known.
  COSMIC_METHOD static F32 encode_about(const Planes &planes, int64_t block,
                                        const BlockContext &context, int slot, float *values,
                                        uint32_t means) {
    return keep(planes, block, context, slot, values, about<false>(values, context, slot, means));
  }

private:
  struct Encoded {
    Codes<2> codes;
    uint32_t means;
    F32 squares;
  };

  COSMIC_METHOD static F32 keep(const Planes &planes, int64_t block, const BlockContext &context,
                                int slot, float *values, Encoded out) {
    if (__builtin_expect(!(reduce_add(out.squares) < kLargest * kLargest), 0)) {
      mend(planes, block, context, values);
      out = encoded<true>(values, context, slot);
    }
    out.codes.store(codes_at(planes, block));
    *word_at(planes, block) = out.means;
    return out.squares;
  }

  COSMIC_METHOD static uint8_t *codes_at(const Planes &planes, int64_t block) {
    return (uint8_t *)planes.data[0] + block * Codes<2>::kBytes;
  }
  COSMIC_METHOD static uint32_t *word_at(const Planes &planes, int64_t block) {
    return (uint32_t *)planes.data[1] + block;
  }
  COSMIC_METHOD static int64_t elements(const BlockContext &context, int half) {
    const int64_t count = context.count - half * kBlock / 2;
    return count < 0 ? 0 : count > kBlock / 2 ? kBlock / 2 : count;
  }

  // The sums of the codes of both halves, in the lower and the upper half of the result, by eight
  // bytes at a time; padding has the code 0.
  COSMIC_METHOD static uint32_t code_sums(const uint8_t *from) {
    uint64_t words[4];
    __builtin_memcpy(words, from, sizeof(words));
    const uint64_t twos = 0x3333333333333333u, fours = 0x0f0f0f0f0f0f0f0fu;
    const uint64_t bytes = 0x00ff00ff00ff00ffu;
    const auto pairs = [&](uint64_t x) { return (x & twos) + (x >> 2 & twos); };
    const auto quads = [&](uint64_t x) { return (x & fours) + (x >> 4 & fours); };
    const uint64_t sums = quads(pairs(words[0]) + pairs(words[1])) +
                          quads(pairs(words[2]) + pairs(words[3])); // one a byte
    const uint64_t lower = (sums & bytes) * 0x0001000100010001u >> 48;
    const uint64_t upper = (sums >> 8 & bytes) * 0x0001000100010001u >> 48;
    return (uint32_t)lower | (uint32_t)upper << 16;
  }

  COSMIC_METHOD static uint32_t to_bf16(float x) {
    const uint32_t bits = bits_of(x);
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  }

  COSMIC_METHOD static uint32_t mean_of(F32 sum, int64_t count) {
    return to_bf16(count ? reduce_add(sum) / (float)count : 0.0f);
  }

  template <bool kTail> COSMIC_METHOD static F32 inside(F32 x, int64_t count, int group) {
    return kTail ? zero_past<float>(x, count, group) : x;
  }

  template <bool kTail>
  COSMIC_METHOD static Encoded encoded(const float *values, const BlockContext &context, int slot) {
    uint32_t means = 0;
    for (int half = 0; half < 2; ++half) {
      F32 sum = F32::splat(0.0f);
      for (int i = half * kMeanGroups; i < (half + 1) * kMeanGroups; ++i)
        sum = sum + inside<kTail>(F32::load(values + i * kLanes), context.count, i);
      means |= mean_of(sum, elements(context, half)) << (16 * half);
    }
    return about<kTail>(values, context, slot, means);
  }

  template <bool kTail> COSMIC_METHOD static Encoded
  about(const float *values, const BlockContext &context, int slot, uint32_t means) {
    const F32 zero = F32::splat(0.0f), last = F32::splat(3.0f), middle = F32::splat(1.5f);
    const F32 lower = F32::splat(float_of(means << 16));
    const F32 upper = F32::splat(float_of(means & 0xffff0000u));
    const float step = context.m_now;
    const F32 inverse = F32::splat(step > 0x1p-100f ? 1.0f / step : 0.0f);
    // between 4 and 8: the code is what follows the exponent
    const AntitheticAbove<2> random(context.random.slot_key(slot), 4.0f);
    Encoded out{Codes<2>::none(), means, zero};
    for_each_group([&](auto group) COSMIC_LAMBDA {
      constexpr int i = decltype(group)::index;
      const F32 value = F32::load(values + i * kLanes);
      const F32 rest = inside<kTail>(value - (i < kMeanGroups ? lower : upper), context.count, i);
      out.squares = out.squares + rest * rest;
      const F32 place = min(max(rest * inverse + middle, zero), last);
      out.codes.template put<21>(group,
                                 as_int(inside<kTail>(place, context.count, i) + random.of(i)));
    });
    return out;
  }

  // Rare: a value that is no number, or beyond all that an update can be, keeps what it had.
  COSMIC_CALL static void mend(const Planes &planes, int64_t block, const BlockContext &context,
                               float *values) {
    BlockContext corrected = context; // as `values` are
    corrected.m_correction_before = 1.0f;
    UState old(planes, block, corrected, 0, 1.0f, values);
    alignas(64) float before[kBlock];
    for_each_group([&](auto group) {
      F32 units;
      old.load(group, units);
      units.store(before + decltype(group)::index * kLanes);
    });
    for (int64_t k = 0; k < kBlock; ++k)
      if (!(values[k] < kLargest && values[k] > -kLargest)) values[k] = before[k];
  }
};

} // namespace cosmic::COSMIC_TARGET

#else // what it says of itself

#include <cmath>

#include "parts/codec.h"

namespace cosmic::parts {

namespace ustate_codec {

enum { kStepFactor };      // options
enum { kDecode, kEncode }; // numbers

// The step between codes from a sum of squares; the last one if that is not finite.
inline float code_step(double square_sum, double numel, double factor, float last) {
  const double step = std::sqrt(square_sum / numel) * factor;
  return std::isfinite(step) ? static_cast<float>(step) : last;
}

inline void coefficients(Coefficients &c, const float *numbers, const CodecStep &step) {
  c.m_before = numbers[kDecode];
  c.m_now = step.first ? static_cast<float>(step.options[kStepFactor]) : numbers[kEncode];
}

inline void finish(float *numbers, const Coefficients &c, double encoded, double numel,
                   const Encoded & /*state*/, const CodecStep &step) {
  numbers[kDecode] = static_cast<float>(c.m_now);
  numbers[kEncode] =
      code_step(encoded, numel, step.options[kStepFactor], static_cast<float>(c.m_now));
}

// No step has said yet how far apart the codes are to be: the first round has.
inline void start(float *numbers, Coefficients &c, double encoded, double numel,
                  const CodecStep &step) {
  c.m_now = code_step(encoded, numel, step.options[kStepFactor], 0);
  numbers[kDecode] = numbers[kEncode] = static_cast<float>(c.m_now);
}

} // namespace ustate_codec

inline CodecPart ustate() {
  CodecPart part;
  part.name = "ustate";
  part.options = {
      {"m_step_factor", kAboveZero, kHuge, "a finite number > 0", 1.1, PartOption::If::absent}};
  part.first = {planes::codes(2), planes::bf16_of_block("mean", 2)};
  part.numbers = {"ustate_steps", {{"step of the codes"}, {"of the next ones"}}, true};
  part.coefficients = ustate_codec::coefficients;
  part.finish = ustate_codec::finish;
  part.start = ustate_codec::start;
  return part;
}

} // namespace cosmic::parts

#endif
