// `costate`: an average of the gradient as a multiple of the next gradient and the signs of the
// rest; the coding of turboadam 0.1.0.
//   alpha = (m, g) / (g, g) over the tensor        d = m - alpha g
//   m ~ alpha g' + scale sign(d), with g' the gradient of the next step, scale = |d| / sqrt(128) of
//   the block
// A block's ratio |d| / |m| decides how its scale is kept: blocks below the tensor's `null_pct`
// percentile get 0, those from `amp_pct` on a float16.
// Layout: plane 0, 16 bytes of signs a block (1: negative); plane 1, a float a block: 1.25 bits an
// element; plane 2, not part of the state, the ratios. Nothing is random.
#pragma once

#if defined(COSMIC_TARGET) // the arithmetic, on lanes

#include "codecs/packed.h"
#include "gates/no_probe.h"

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

// Probe `alignment`: (m, g) and (g, g), from which alpha follows. What is not finite, or whose
// product might not be, does not count.
template <class Real> struct Alignment {
  using Look = NoLook;
  static constexpr int kFirstSum = 0, kSums = 2;
  static constexpr bool kMeasures = true, kLooksTwice = false, kSelects = false, kSeesV = false;
  using V = Lanes<Real>;

  COSMIC_METHOD explicit Alignment(const Coefficients & /*c*/) {}
  COSMIC_METHOD void look(const Slots<V> &slots, const V &gradient, V *terms) const {
    const V zero = V::splat(Real(0)), most = V::splat(Real(0x1p60f));
    const V g = where_greater(most, abs(gradient), gradient, zero);
    terms[0] = where_greater(most, abs(slots.m), slots.m, zero) * g;
    terms[1] = g * g;
  }
};

} // namespace cosmic::COSMIC_TARGET

#else // what it says of itself

#include <algorithm>
#include <cmath>
#include <vector>

#include "isa/dispatch.h"
#include "kernels/kernels.h"
#include "parts/codec.h"

namespace cosmic::parts {

namespace costate_codec {

enum { kNullPct, kAmpPct }; // options
enum { kAlong, kSquare };   // what the probe adds up

// The place of a percentile among `count` sorted numbers, as turboadam 0.1.0 takes it.
inline size_t lower_place(double share, int64_t count) {
  return static_cast<size_t>(
      std::max<int64_t>(0, static_cast<int64_t>(share * static_cast<double>(count)) - 1));
}
inline size_t upper_place(double share, int64_t count) {
  return static_cast<size_t>(
      std::min(count - 1, static_cast<int64_t>(share * static_cast<double>(count))));
}

// What is too large for a half stays as it is.
inline float to_half_and_back(float x) {
  const Kernels &kernels = chosen_kernels();
  float lanes[kLanes] = {x};
  uint16_t halves[kLanes];
  kernels.narrow_f16(lanes, kLanes, halves);
  kernels.widen_f16(halves, kLanes, lanes);
  return std::isfinite(lanes[0]) ? lanes[0] : x;
}

inline void classify_blocks(const Encoded &state, const CodecStep &step) {
  if (state.blocks == 0) return;
  std::vector<float> sorted(state.by_block, state.by_block + state.blocks);
  std::sort(sorted.begin(), sorted.end());
  const float null_below = sorted[lower_place(step.options[kNullPct], state.blocks)];
  const float amplitude_from = sorted[upper_place(step.options[kAmpPct], state.blocks)];
  auto *scales = static_cast<float *>(state.planes.data[1]);
  for (int64_t b = 0; b < state.blocks; ++b) {
    const float ratio = state.by_block[b];
    if (ratio >= amplitude_from)
      scales[b] = to_half_and_back(scales[b]);
    else if (ratio < null_below)
      scales[b] = 0;
  }
}

inline void coefficients(Coefficients &c, const float *numbers, const CodecStep & /*step*/) {
  c.m_before = numbers[0];
}

inline void measure(Coefficients &c, const double *probed) {
  const double along = probed[kAlong], square = probed[kSquare];
  const auto alpha = static_cast<float>(square > 0 ? along / square : 0.0);
  c.m_now = std::isfinite(alpha) ? alpha : 0.0f;
}

inline void finish(float *numbers, const Coefficients &c, double /*encoded*/, double /*numel*/,
                   const Encoded &state, const CodecStep &step) {
  numbers[0] = static_cast<float>(c.m_now);
  classify_blocks(state, step);
}

} // namespace costate_codec

inline CodecPart costate() {
  CodecPart part;
  part.name = "costate";
  part.options = {{"null_pct", 0, 1, "a number in [0, 1]", 0.1, PartOption::If::absent},
                  {"amp_pct", 0, 1, "a number in [0, 1]", 0.9, PartOption::If::absent}};
  part.first = {planes::codes(1), {"scale", "float32", dlpack::kFloat, 32, PlaneOf::Each::block}};
  part.numbers = {"costate_alpha", {{"share of the gradient"}}, true};
  part.probe = "alignment";
  part.measured = part.by_block = part.of_next_gradient = true;
  part.coefficients = costate_codec::coefficients;
  part.measure = costate_codec::measure;
  part.finish = costate_codec::finish;
  return part;
}

} // namespace cosmic::parts

#endif
