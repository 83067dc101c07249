// `costate`: an average of the gradient as a multiple of the next gradient and the signs of the
// rest; the coding of turboadam 0.1.0.
//   alpha = (m, g) / (g, g) over the tensor        d = m - alpha g
//   m ~ alpha g' + scale sign(d), with g' the gradient of the next step, scale = |d| / sqrt(128) of
//   the block
// A block's ratio |d| / |m| decides how its scale is kept: blocks below the tensor's `null_pct`
// percentile get 0, those from `amp_pct` on a float16 (plan/tensor_numbers.cpp).
// Layout: plane 0, 16 bytes of signs a block (1: negative); plane 1, a float a block: 1.25 bits an
// element; plane 2, not part of the state, the ratios. Nothing is random.
#pragma once

#include "codecs/packed.h"

namespace cosmic::COSMIC_TARGET {

struct CoState : CodecTraits {
  static constexpr bool kPresent = true, kCompressed = true, kStaged = false, kUpdateUnits = false;
  static constexpr bool kMatrix = false, kSeesGradient = true;
  static constexpr int kPlanes = 3;
  struct Summary {
    float rest, all; // sums of d^2 and m^2
    I32 signs;
  };
  static constexpr int64_t bytes(int plane, int64_t numel) {
    return blocks_of(numel) * (plane ? (int64_t)sizeof(float) : Codes<1>::kBytes);
  }

  Codes<1> before, after;
  F32 scales; // + and -, in turn
  F32 decay, alpha_before, alpha;
  F32 rest, all;
  int64_t count;

  COSMIC_METHOD CoState(const Planes &planes, int64_t block, const BlockContext &context,
                        int /*slot*/, float decay, float * /*waiting*/)
      : before(Codes<1>::load((const uint8_t *)planes.data[0] + block * Codes<1>::kBytes)),
        after(Codes<1>::none()), decay(F32::splat(decay)),
        alpha_before(F32::splat(context.m_before)), alpha(F32::splat(context.m_now)),
        rest(F32::splat(0.0f)), all(F32::splat(0.0f)), count(context.count) {
    alignas(64) static const float signs[kLanes] = {1, -1, 1, -1, 1, -1, 1, -1,
                                                    1, -1, 1, -1, 1, -1, 1, -1};
    scales = F32::load(signs) * F32::splat(((const float *)planes.data[1])[block]);
  }

  template <int i> COSMIC_METHOD void load(Group<i> group, const F32 &gradient, F32 &out) {
    out = decay * (alpha_before * gradient + lookup_periodic(scales, before.low(group)));
    if (__builtin_expect(count < (i + 1) * kLanes, 0)) out = zero_past<float>(out, count, i);
  }

  template <int i> COSMIC_METHOD void store(Group<i> group, const F32 &gradient, const F32 &value) {
    const F32 d = value - alpha * gradient, zero = F32::splat(0.0f), most = F32::splat(0x1p60f);
    // not d's own sign bit: a NaN's depends on the ISA
    const F32 negative = where_greater(zero, d, F32::splat(-1.0f), zero);
    after.template put<31>(group, as_int(negative));
    // of a huge m the rest is what rounding left
    const F32 kept = where_greater(most, abs(value), where_greater(most, abs(d), d, zero), zero);
    const F32 whole = where_greater(most, abs(value), value, zero);
    rest = rest + kept * kept;
    all = all + whole * whole;
  }

  template <bool kTail>
  COSMIC_METHOD Summary measure(const Planes &, int64_t, const BlockContext &, int64_t) const {
    return {reduce_add(rest), reduce_add(all), after.rows[0]};
  }

  COSMIC_METHOD static void encode(const Planes &planes, int64_t block, const BlockContext &, int,
                                   const float *, const Summary &summary) {
    Codes<1> signs;
    signs.rows[0] = summary.signs;
    signs.store((uint8_t *)planes.data[0] + block * Codes<1>::kBytes);
    const float norm = __builtin_sqrtf(summary.rest);
    ((float *)planes.data[1])[block] = norm / 11.313708f; // sqrt(128)
    ((float *)planes.data[2])[block] = summary.all > 0 ? norm / __builtin_sqrtf(summary.all) : 0.0f;
  }
};

} // namespace cosmic::COSMIC_TARGET
