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

  COSMIC_METHOD UState(const Planes &planes, int64_t block, const BlockContext &context,
                       int /*slot*/, float decay, float *waiting)
      : codes(Codes<2>::load(codes_at(planes, block))), values(waiting) {
    alignas(64) static const float places[kLanes] = {0, 1, 2, 3, 0, 1, 2, 3,
                                                     0, 1, 2, 3, 0, 1, 2, 3};
    const uint32_t word = *word_at(planes, block);
    for (int half = 0; half < 2; ++half) {
      const float mean = float_of(half ? word & 0xffff0000u : word << 16);
      const int64_t count = elements(context, half);
      const float middle = count ? reduce_add(to_float(code_sums(half))) / (float)count : 0.0f;
      levels[half] = ((F32::load(places) - F32::splat(middle)) * F32::splat(context.m_before) +
                      F32::splat(mean)) *
                     F32::splat(decay * context.m_correction_before);
    }
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

  // `values` are in update units by now. Returns lanes of the sum of r^2.
  COSMIC_METHOD static F32 encode(const Planes &planes, int64_t block, const BlockContext &context,
                                  int slot, float *values, Nothing) {
    Encoded out = context.count == kBlock ? encoded<false>(values, context, slot)
                                          : encoded<true>(values, context, slot);
    if (__builtin_expect(!(reduce_add(out.squares) < kLargest * kLargest), 0)) {
      mend(planes, block, context, values);
      out = encoded<true>(values, context, slot);
    }
    out.codes.store(codes_at(planes, block));
    *word_at(planes, block) = out.means;
    return out.squares;
  }

private:
  struct Encoded {
    Codes<2> codes;
    uint32_t means;
    F32 squares;
  };

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

  // The sum of the four codes of each lane of a half; padding has the code 0.
  COSMIC_METHOD I32 code_sums(int half) const {
    const I32 two = I32::splat(0x33), four = I32::splat(0x0f);
    const I32 row = half ? shift_right<8>(codes.rows[0]) : codes.rows[0];
    const I32 pairs = (row & two) + (shift_right<2>(row) & two);
    return (pairs & four) + (shift_right<4>(pairs) & four);
  }

  COSMIC_METHOD static uint32_t to_bf16(float x) {
    const uint32_t bits = bits_of(x);
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  }

  template <bool kTail>
  COSMIC_METHOD static Encoded encoded(const float *values, const BlockContext &context, int slot) {
    Encoded out{Codes<2>::none(), 0, F32::splat(0.0f)};
    // between 4 and 8: the code is what follows the exponent
    const AntitheticAbove<2> random(context.random.slot_key(slot), 4.0f);
    half<kTail, 0>(values, context, random, out);
    half<kTail, 1>(values, context, random, out);
    return out;
  }

  template <bool kTail, int kHalf>
  COSMIC_METHOD static void half(const float *values, const BlockContext &context,
                                 const AntitheticAbove<2> &random, Encoded &out) {
    const F32 zero = F32::splat(0.0f), last = F32::splat(3.0f), middle = F32::splat(1.5f);
    const auto inside = [&](F32 x, int group) COSMIC_LAMBDA {
      return kTail ? zero_past<float>(x, context.count, group) : x;
    };
    F32 sum = zero;
    for (int k = 0; k < kMeanGroups; ++k) {
      const int i = kHalf * kMeanGroups + k;
      sum = sum + inside(F32::load(values + i * kLanes), i);
    }
    const int64_t count = kTail ? elements(context, kHalf) : kBlock / 2;
    const uint32_t mean = to_bf16(count ? reduce_add(sum) / (float)count : 0.0f);
    out.means |= mean << (16 * kHalf);
    const F32 mean_lanes = F32::splat(float_of(mean << 16));
    const float step = context.m_now;
    const F32 inverse = F32::splat(step > 0x1p-100f ? 1.0f / step : 0.0f);
    for_each_group([&](auto group) COSMIC_LAMBDA {
      constexpr int i = decltype(group)::index;
      if constexpr (i / kMeanGroups == kHalf) {
        const F32 rest = inside(F32::load(values + i * kLanes) - mean_lanes, i);
        out.squares = out.squares + rest * rest;
        const F32 place = inside(min(max(rest * inverse + middle, zero), last), i);
        out.codes.template put<21>(group, as_int(place + random.of(i)));
      }
    });
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
