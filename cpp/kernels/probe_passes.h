// The pass of a probe over a batch, after the rule's. Compiled once for each probe: it needs to
// know neither the rule nor the codecs.
#pragma once

#include "gates/no_probe.h"
#include "kernels/rule_passes.h"

namespace cosmic::COSMIC_TARGET {

template <class Probe, class Real>
COSMIC_CALL void probe_pass(const Coefficients &coefficients, Batch<Real> &batch,
                            const Values<Real> &values, BlockLook *looks, int first_sum) {
  using V = Lanes<Real>;
  constexpr int kTerms = Probe::kSums > 0 ? Probe::kSums : 1;
  const Probe probe(coefficients);
  Real(*const lanes)[kLanes] = batch.sums.probed + first_sum;
  const Real *const m = values.m.at, *const v = values.v.at, *const shares = batch.shares;
  const Real *const g = batch.g;
  const int64_t count = batch.count;
  V sums[kTerms];
  for (int s = Probe::kFirstSum; s < Probe::kSums; ++s) sums[s] = V::load(lanes[s]);
  for (int b = 0; b < batch.blocks; ++b) {
    typename Probe::Look look(probe);
    for (int64_t k = b * kBlock; k < (b + 1) * kBlock; k += kLanes) {
      Slots<V> slots;
      slots.m = V::load(m + k);
      slots.v = V::load(v + k);
      slots.signal_share = V::load(shares + k);
      const auto inside = [&](V x) COSMIC_LAMBDA { return inside_of<Real>(count, x, k); };
      look.see(slots, inside);
      V terms[kTerms];
      probe.look(slots, V::load(g + k), terms);
      for (int s = Probe::kFirstSum; s < Probe::kSums; ++s) sums[s] = sums[s] + inside(terms[s]);
    }
    look.close(looks, batch.first + b);
  }
  for (int s = Probe::kFirstSum; s < Probe::kSums; ++s) sums[s].store(lanes[s]);
}

// ---- tables -------------------------------------------------------------------------------------

template <class Real> using ProbePass = void (*)(const Coefficients &coefficients,
                                                 Batch<Real> &batch, const Values<Real> &values,
                                                 BlockLook *looks, int first_sum);

template <class Real> struct ProbePasses {
  // in a step; in a measuring pass where the coefficients say that it is the first look, and else
  ProbePass<Real> step = nullptr, first_look = nullptr, second_look = nullptr;
  bool (*wants)(const Coefficients &coefficients, const BlockLook &look) = nullptr; // in the second
  int sums = 0;
  bool sees_v = false; // or what follows from the second moment
};

template <class Probe> bool wants_block(const Coefficients &coefficients, const BlockLook &look) {
  return Probe(coefficients).wants(look);
}

template <class Real, class Probe> constexpr ProbePasses<Real> probe_passes() {
  static_assert(Probe::kSums <= kSumsOfPart, "a probe has 3 sums at most");
  ProbePasses<Real> out;
  if constexpr (Probe::kLooksTwice) {
    using Second = typename Probe::SecondLook;
    out.first_look = probe_pass<typename Probe::FirstLook, Real>;
    out.second_look = probe_pass<Second, Real>;
    if constexpr (Second::kSelects) out.wants = wants_block<Second>;
  } else if constexpr (Probe::kSums > 0) {
    out.first_look = out.second_look = probe_pass<Probe, Real>;
  }
  if constexpr (Probe::kSums > 0) out.step = probe_pass<Probe, Real>;
  out.sums = Probe::kSums;
  out.sees_v = Probe::kSeesV;
  return out;
}

// By ProbeAt.
#define COSMIC_PROBE_OF_GATE(name, Probe) probe_passes<Real, Probe<Real>>(),
#define COSMIC_PROBE_OF_CODEC(name, First, Second, Probe) probe_passes<Real, Probe<Real>>(),
template <class Real> constexpr ProbePasses<Real> kProbePasses[] = {
    probe_passes<Real, NoProbe<Real>>(),
    COSMIC_GATES(COSMIC_PROBE_OF_GATE) COSMIC_CODECS(COSMIC_PROBE_OF_CODEC)};
#undef COSMIC_PROBE_OF_GATE
#undef COSMIC_PROBE_OF_CODEC

} // namespace cosmic::COSMIC_TARGET
