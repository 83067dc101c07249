// Compiled once per ISA, with COSMIC_TARGET set to its name: one function table.
#include "kernels/kernels.h"

#include "codecs/absmax.h"
#include "kernels/second_moment.h"
#include "kernels/step.h"

namespace cosmic::COSMIC_TARGET {

namespace {

// The rule of a combination for its arithmetic, and for whether a slow average is there.
template <class Real, class Slow> struct Rules {
  using Adam = COSMIC_TARGET::Adam<Real, Slow::kPresent>;
  using Belief = COSMIC_TARGET::Belief<Real>;
  using RmsProp = COSMIC_TARGET::RmsProp<Real>;
  using Sign = COSMIC_TARGET::Sign<Real>;
};

template <class Real> struct Probes {
  using None = NoProbe;
  using Alignment = COSMIC_TARGET::Alignment<Real>;
  using Share = COSMIC_TARGET::Share<Real>;
  using Agar = AgarProbe<Real>;
};

template <class Real, class Rule, class M, class Slow, class Var, class Probe>
constexpr auto measuring() noexcept -> void (*)(const BlockRun &) {
  if constexpr (Probe::kMeasures)
    return measure_run<Real, Rule, M, Slow, Var, Probe>;
  else
    return nullptr;
}

void widen_bf16(const uint16_t *from, int64_t count, float *to) {
  for (int64_t k = 0; k < count; k += kLanes) {
    if (k % (2 * kLanes) == 0) __builtin_prefetch((const char *)(from + k) + kPrefetchBytes);
    as_float(shift_left<16>(load_u16(from + k))).store(to + k);
  }
}

void narrow_bf16(const float *from, int64_t count, uint16_t *to) {
  for (int64_t k = 0; k < count; k += kLanes) {
    const F32 x = F32::load(from + k);
    // half a unit less one, and the kept bit's parity: to nearest, ties to even
    const I32 parity = shift_right<16>(as_int(x)) & I32::splat(1);
    store_u16(to + k, float_to_bf16(x, parity + I32::splat(0x7fff)));
  }
}

constexpr int kParamSlot = 3; // after m, m_slow and v

void round_bf16(const float *from, int64_t count, uint32_t tensor_key, int64_t first_block,
                uint16_t *to) {
  for (int64_t k = 0; k < count; k += kBlock) {
    const RandomLanes lanes(BlockRandom(tensor_key, first_block + k / kBlock).slot_key(kParamSlot));
    for (int i = 0; i < kBlock / kLanes && k + i * kLanes < count; ++i) {
      const I32 random = shift_right<16>(lanes.of(i));
      store_u16(to + k + i * kLanes, float_to_bf16(F32::load(from + k + i * kLanes), random));
    }
  }
}

void widen_f16(const uint16_t *from, int64_t count, float *to) {
  for (int64_t k = 0; k < count; k += kLanes) load_f16(from + k).store(to + k);
}

void narrow_f16(const float *from, int64_t count, uint16_t *to) {
  for (int64_t k = 0; k < count; k += kLanes) store_f16(to + k, F32::load(from + k));
}

} // namespace

extern const Kernels kernels;
const Kernels kernels = {
    COSMIC_ISA_NAME,
    {
#define COSMIC_STEP(Real, Rule, M, Slow, Var, Probe)                                               \
  step_run<Real, typename Rules<Real, Slow>::Rule, M, Slow, typename SecondMoment<Var>::type,      \
           typename Probes<Real>::Probe>,
        COSMIC_COMBINATIONS(COSMIC_STEP)
#undef COSMIC_STEP
    },
    {
#define COSMIC_MEASURE(Real, Rule, M, Slow, Var, Probe)                                            \
  measuring<Real, typename Rules<Real, Slow>::Rule, M, Slow, typename SecondMoment<Var>::type,     \
            typename Probes<Real>::Probe>(),
        COSMIC_COMBINATIONS(COSMIC_MEASURE)
#undef COSMIC_MEASURE
    },
    inspect_run<float>,
    inspect_run<double>,
    widen_bf16,
    widen_f16,
    narrow_bf16,
    round_bf16,
    narrow_f16,
    quantize_absmax,
    dequantize_absmax,
};

} // namespace cosmic::COSMIC_TARGET
