// The block pipeline: load p and g, decode the slots, apply the rule, store p; then encode the
// slots of a few blocks together. One pass over memory, everything between in registers and L1.
#pragma once

#include "codecs/bf16.h"
#include "codecs/costate.h"
#include "codecs/factored.h"
#include "codecs/full.h"
#include "codecs/none.h"
#include "codecs/q8.h"
#include "codecs/rowmean.h"
#include "codecs/u1.h"
#include "codecs/u2.h"
#include "codecs/u4.h"
#include "codecs/ustate.h"
#include "codecs/v4.h"
#include "codecs/v_log.h"
#include "gates/agar.h"
#include "gates/calibrated_agar.h"
#include "gates/no_probe.h"
#include "kernels/kernels.h"
#include "kernels/reach.h"
#include "kernels/sums.h"
#include "kernels/tail_image.h"
#include "rules/adam.h"
#include "rules/belief.h"
#include "rules/rmsprop.h"
#include "rules/sign.h"

namespace cosmic::COSMIC_TARGET {

// How far ahead of the step memory is asked for. Always the gradient, which is read only; the
// parameter only where state is compressed. Measured: there arithmetic leaves memory idle otherwise
// (a step with u4 and factored v takes a quarter less time), elsewhere asking for what is written
// costs a few percent.
constexpr int64_t kPrefetchBytes = 4096;

// Blocks that are stepped before they are encoded, so that the chains from a block's statistics to
// its codes overlap.
constexpr int kStageBlocks = 4;

// Values of one slot that wait to be encoded. A base of the pipeline, so that a slot whose values
// do not wait takes no room.
template <int kSlot, bool kStaged> struct Waiting {
  alignas(64) float values[kStageBlocks][kBlock];
  COSMIC_METHOD float *of(int k) { return values[k]; }
};
template <int kSlot> struct Waiting<kSlot, false> {
  COSMIC_METHOD float *of(int /*k*/) { return nullptr; }
};

// How far a pass goes: a step changes parameters and state, a measuring pass only adds up.
enum class Pass { step, measure };

template <Pass kPass, bool kTail, class Real, class Rule, class M, class Slow, class Var,
          class Probe, class Look, class Sums>
COSMIC_INLINE void step_block(const Rule &rule, const Probe &probe, const BlockContext &context,
                              Real *p, const Real *g, M &m, Slow &m_slow, Var &v, Look &look,
                              Sums &sums) {
  using V = Lanes<Real>;
  using Through = Reach<kTail>;
  constexpr bool kUnitsNow = M::kUpdateUnits && !M::kPersistedUnits;
  const V scale_before = V::splat((Real)context.v_scale_before), eps = V::splat((Real)context.eps);
  Through::for_each([&](auto group) COSMIC_LAMBDA {
    const int i = group.index;
    __builtin_prefetch((const char *)(g + i * kLanes) + kPrefetchBytes);
    if constexpr (kPass == Pass::step && (!M::kPresent || M::kCompressed || Var::kCompressed))
      __builtin_prefetch((const char *)(p + i * kLanes) + kPrefetchBytes, 1);
    if constexpr (kPass == Pass::measure && !kTail && kInlining) { // which waits for memory alone
      m.prefetch(group, kPrefetchBytes);
      v.prefetch(group, kPrefetchBytes);
    }
    const V gradient = V::load(g + i * kLanes);
    Slots<V> slots;
    Through::load(v, group, gradient, slots.v);
    Through::load(m, group, gradient, slots.m);
    Through::load(m_slow, group, gradient, slots.m_slow);
    if constexpr (M::kUpdateUnits) {
      const V unit = Through::unit(v, group, scale_before, eps);
      slots.m = slots.m * unit;
      if constexpr (Slow::kPresent) slots.m_slow = slots.m_slow * unit;
    }
    V u;
    if constexpr (kPass == Pass::step)
      rule.update(V::load(p + i * kLanes), gradient, slots, u).store(p + i * kLanes);
    else
      rule.update(V::splat(Real(0)), gradient, slots, u);
    const auto inside = [&](V x) COSMIC_LAMBDA {
      return kTail && context.count < (i + 1) * kLanes ? zero_past<Real>(x, context.count, i) : x;
    };
    look.see(slots, inside);
    V probed[Probe::kSums > 0 ? Probe::kSums : 1];
    probe.look(slots, gradient, probed);
    for (int k = Probe::kFirstSum; k < Probe::kSums; ++k)
      sums.probed[k] = sums.probed[k] + inside(probed[k]);
    sums.abs_gradient = sums.abs_gradient + abs(gradient);
    settle(sums.abs_gradient);
    if constexpr (kPass == Pass::step) {
      const V counted = inside(u);
      sums.square_update = sums.square_update + counted * counted;
      settle(sums.square_update);
      if constexpr (kUnitsNow) {
        slots.m = slots.m / slots.denominator;
        if constexpr (Slow::kPresent) slots.m_slow = slots.m_slow / slots.denominator;
      }
      Through::store(m, group, gradient, slots.m);
      Through::store(m_slow, group, gradient, slots.m_slow);
      if constexpr (Var::kKeepsRoots)
        Through::store(v, group, gradient, slots.root);
      else
        Through::store(v, group, gradient, slots.v);
    }
  });
}

// One block: its elements, and where its state lies.
template <class Real> struct BlockAt {
  int64_t block; // of the tensor
  int64_t at;    // of the planes
  const Planes &m, &m_slow, &v;
  Real *p;
  const Real *g;
  int64_t count; // elements
};

template <class Real, class Rule, class M, class Slow, class Var, class Probe>
struct Pipeline : Waiting<0, M::kStaged>, Waiting<1, Slow::kStaged>, Waiting<2, Var::kStaged> {
  using MWaiting = Waiting<0, M::kStaged>;
  using SlowWaiting = Waiting<1, Slow::kStaged>;
  using VWaiting = Waiting<2, Var::kStaged>;
  using Sums = RunningSums<Real, Probe::kSums, M::kAddsUp>;
  const BlockRun &run;
  typename Var::Summary v_summary[kStageBlocks];
  typename M::Summary m_summary[kStageBlocks];
  typename Slow::Summary slow_summary[kStageBlocks];

  COSMIC_METHOD explicit Pipeline(const BlockRun &run) : run(run) {}

  COSMIC_METHOD BlockContext context_of(const BlockAt<Real> &here) const {
    return BlockContext(*run.coefficients, here.block, here.count, run.matrix);
  }

  // Of a pass over some blocks, whose gaps the hardware's prefetching does not see through.
  COSMIC_METHOD void ask_ahead(const BlockAt<Real> &here, const Probe &probe) const {
    constexpr int64_t kAhead = 8;
    if (here.block + kAhead >= run.first_block + run.count / kBlock) return;
    if (!probe.wants(run.looks[here.block + kAhead])) return;
    const int64_t line = 64 / (int64_t)sizeof(Real);
    for (int64_t k = 0; k < kBlock; k += line) __builtin_prefetch(here.g + kAhead * kBlock + k);
    M::ask(here.m, here.at + kAhead);
    Var::ask(here.v, here.at + kAhead);
  }

  // Steps a block, the k-th of those that are encoded together. Rule, probe and sums are the
  // caller's own, for registers: this object's waiting values are written through pointers, so that
  // nothing in it is sure to stay.
  template <Pass kPass, bool kTail> COSMIC_METHOD void
  step(int k, const BlockAt<Real> &here, const Rule &rule, const Probe &probe, Sums &sums) {
    if constexpr (Probe::kSelects) {
      if constexpr (!kTail) ask_ahead(here, probe);
      if (!probe.wants(run.looks[here.block])) return;
    }
    if constexpr (Var::kMatrix && !kTail)
      if (Var::InRow::fits(*run.matrix, here.block))
        return step_with<kPass, typename Var::InRow, kTail>(k, here, rule, probe, sums);
    step_with<kPass, Var, kTail>(k, here, rule, probe, sums);
  }

  template <Pass kPass, class V, bool kTail> COSMIC_METHOD void
  step_with(int k, const BlockAt<Real> &here, const Rule &rule, const Probe &probe, Sums &sums) {
    const Coefficients &c = *run.coefficients;
    const BlockContext context = context_of(here);
    M m(here.m, here.at, context, 0, (Real)(Rule::kDecaysM ? c.beta1 : 1.0), MWaiting::of(k));
    Slow slow(here.m_slow, here.at, context, 1, (Real)c.beta_slow, SlowWaiting::of(k));
    V v(here.v, V::kMatrix ? here.block : here.at, context, 2, (Real)c.beta2, VWaiting::of(k));
    typename Probe::Look look(probe);
    step_block<kPass, kTail>(rule, probe, context, here.p, here.g, m, slow, v, look, sums);
    look.close(run.looks, here.block);
    if constexpr (kPass == Pass::step) {
      m_summary[k] = m.template measure<kTail>(here.m, here.at, context, here.count);
      slow_summary[k] = slow.template measure<kTail>(here.m_slow, here.at, context, here.count);
      v_summary[k] = v.template measure<kTail>(here.v, here.at, context, here.count);
    }
  }

  template <bool kTail> COSMIC_METHOD void encode(int k, const BlockAt<Real> &here, Sums &sums) {
    using Through = Reach<kTail>;
    const BlockContext context = context_of(here);
    Through::template encode<Var>(here.v, here.at, context, 2, VWaiting::of(k), v_summary[k]);
    Through::template encode<Slow>(here.m_slow, here.at, context, 1, SlowWaiting::of(k),
                                   slow_summary[k]);
    if constexpr (M::kPersistedUnits) to_persisted_units<Through>(k, here, context);
    if constexpr (M::kAddsUp)
      sums.encoded = sums.encoded + Through::template encode<M>(here.m, here.at, context, 0,
                                                                MWaiting::of(k), m_summary[k]);
    else
      Through::template encode<M>(here.m, here.at, context, 0, MWaiting::of(k), m_summary[k]);
  }

  // The second moment is encoded by now: the waiting values become units of what will be decoded.
  template <class Through>
  COSMIC_METHOD void to_persisted_units(int k, const BlockAt<Real> &here, BlockContext context) {
    context.v_scale_before = context.v_scale;
    const F32 scale = F32::splat(context.v_scale), eps = F32::splat(context.eps);
    const F32 corrected = F32::splat(1.0f / context.m_correction);
    const Var v(here.v, here.at, context, 2, 1.0f, nullptr);
    float *values = MWaiting::of(k);
    Through::for_each([&](auto group) COSMIC_LAMBDA {
      float *at = values + group.index * kLanes;
      (F32::load(at) * corrected / Through::unit(v, group, scale, eps)).store(at);
    });
  }

  // A whole block, `before` blocks into the run.
  COSMIC_METHOD BlockAt<Real> whole(int64_t before) const {
    const int64_t block = run.first_block + before;
    return {block,
            block,
            run.m,
            run.m_slow,
            run.v,
            run.param ? (Real *)run.param + before * kBlock : nullptr,
            (const Real *)run.gradient + before * kBlock,
            kBlock};
  }

  template <Pass kPass> COSMIC_METHOD void whole_blocks(int64_t blocks, const Rule &rule,
                                                        const Probe &probe, Sums &sums) {
    for (int64_t b = 0; b < blocks; b += kStageBlocks) {
      const int together = blocks - b < kStageBlocks ? (int)(blocks - b) : kStageBlocks;
      for (int k = 0; k < together; ++k) step<kPass, false>(k, whole(b + k), rule, probe, sums);
      if constexpr (kPass == Pass::step)
        for (int k = 0; k < together; ++k) encode<false>(k, whole(b + k), sums);
    }
  }

  template <Pass kPass> COSMIC_METHOD void
  partial_block(int64_t before, int64_t count, const Rule &rule, const Probe &probe, Sums &sums) {
    const BlockAt<Real> home = whole(before);
    TailImage<M> m(run.m, home.block, count);
    TailImage<Slow> slow(run.m_slow, home.block, count);
    TailImage<Var> v(run.v, home.block, count);
    const BlockAt<Real> image{home.block, 0,      m.planes, slow.planes,
                              v.planes,   home.p, home.g,   count};
    step<kPass, true>(0, image, rule, probe, sums);
    if constexpr (kPass == Pass::step) {
      encode<true>(0, image, sums);
      m.write_back();
      slow.write_back();
      v.write_back();
    }
  }
};

template <Pass kPass, class Real, class Rule, class M, class Slow, class Var, class Probe>
COSMIC_INLINE void pass_over(const BlockRun &run) {
  Pipeline<Real, Rule, M, Slow, Var, Probe> pipeline(run);
  const int64_t whole = run.count / kBlock, tail = run.count % kBlock;
  const Rule rule(*run.coefficients);
  const Probe probe(*run.coefficients);
  typename decltype(pipeline)::Sums sums(*run.sums);
  pipeline.template whole_blocks<kPass>(whole, rule, probe, sums);
  if (tail) pipeline.template partial_block<kPass>(whole, tail, rule, probe, sums);
  sums.store(run.sums);
  note_nonfinite((const Real *)run.gradient, run.count, run.sums);
}

template <class Real, class Rule, class M, class Slow, class Var, class Probe>
void step_run(const BlockRun &run) {
  pass_over<Pass::step, Real, Rule, M, Slow, Var, Probe>(run);
}

template <class Real, class Rule, class M, class Slow, class Var, class Probe>
void measure_run(const BlockRun &run) {
  static_assert(!Var::kMatrix, "rows and columns are summed by storing");
  if constexpr (Probe::kLooksTwice) {
    if (run.coefficients->first_look)
      pass_over<Pass::measure, Real, Rule, M, Slow, Var, typename Probe::FirstLook>(run);
    else
      pass_over<Pass::measure, Real, Rule, M, Slow, Var, typename Probe::SecondLook>(run);
  } else {
    pass_over<Pass::measure, Real, Rule, M, Slow, Var, Probe>(run);
  }
}

} // namespace cosmic::COSMIC_TARGET
