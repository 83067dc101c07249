// The block pipeline of a combination that is compiled as a whole: load p and g, decode the slots,
// apply the rule, store p; then encode the slots of a few blocks together. One pass over memory,
// everything between in registers and L1. Of whole blocks; a partial one goes by parts.
#pragma once

#include "codecs/none.h"
#include "gates/no_probe.h"
#include "kernels/apart.h"
#include "kernels/combinations.h"
#include "kernels/pass.h"
#include "kernels/sums.h"

namespace cosmic::COSMIC_TARGET {

// Values of one slot that wait to be encoded. A base of the pipeline, so that a slot whose values
// do not wait takes no room.
template <int kSlot, bool kStaged> struct Waiting {
  alignas(64) float values[kStageBlocks][kBlock];
  COSMIC_METHOD float *of(int k) { return values[k]; }
};
template <int kSlot> struct Waiting<kSlot, false> {
  COSMIC_METHOD float *of(int /*k*/) { return nullptr; }
};

template <Pass kPass, class Real, class Rule, class M, class Slow, class Var, class Probe,
          class Look, class Sums>
COSMIC_INLINE void step_block(const Rule &rule, const Probe &probe, const BlockContext &context,
                              Real *p, const Real *g, M &m, Slow &m_slow, Var &v, Look &look,
                              Sums &sums) {
  using V = Lanes<Real>;
  constexpr bool kUnitsNow = M::kUpdateUnits && !M::kPersistedUnits;
  const V scale_before = V::splat((Real)context.v_scale_before), eps = V::splat((Real)context.eps);
  for_each_group([&](auto group) COSMIC_LAMBDA {
    constexpr int i = decltype(group)::index;
    __builtin_prefetch((const char *)(g + i * kLanes) + kPrefetchBytes);
    if constexpr (kPass == Pass::step && (!M::kPresent || M::kCompressed || Var::kCompressed))
      __builtin_prefetch((const char *)(p + i * kLanes) + kPrefetchBytes, 1);
    if constexpr (kPass == Pass::measure) { // which waits for memory alone
      m.prefetch(group, kPrefetchBytes);
      v.prefetch(group, kPrefetchBytes);
    }
    const V gradient = V::load(g + i * kLanes);
    Slots<V> slots;
    load_group(v, group, gradient, slots.v);
    load_group(m, group, gradient, slots.m);
    load_group(m_slow, group, gradient, slots.m_slow);
    if constexpr (M::kUpdateUnits) {
      const V unit = v.unit(group, scale_before, eps);
      slots.m = slots.m * unit;
      if constexpr (Slow::kPresent) slots.m_slow = slots.m_slow * unit;
    }
    V u;
    if constexpr (kPass == Pass::step)
      rule.update(V::load(p + i * kLanes), gradient, slots, u).store(p + i * kLanes);
    else
      rule.update(V::splat(Real(0)), gradient, slots, u);
    look.see(slots, [](V x) COSMIC_LAMBDA { return x; });
    V probed[Probe::kSums > 0 ? Probe::kSums : 1];
    probe.look(slots, gradient, probed);
    for (int k = Probe::kFirstSum; k < Probe::kSums; ++k)
      sums.probed[k] = sums.probed[k] + probed[k];
    sums.abs_gradient = sums.abs_gradient + abs(gradient);
    settle(sums.abs_gradient);
    if constexpr (kPass == Pass::step) {
      sums.square_update = sums.square_update + u * u;
      settle(sums.square_update);
      if constexpr (kUnitsNow) {
        slots.m = slots.m / slots.denominator;
        if constexpr (Slow::kPresent) slots.m_slow = slots.m_slow / slots.denominator;
      }
      store_group(m, group, gradient, slots.m);
      store_group(m_slow, group, gradient, slots.m_slow);
      if constexpr (Var::kKeepsRoots)
        store_group(v, group, gradient, slots.root);
      else
        store_group(v, group, gradient, slots.v);
    }
  });
}

// A first moment's codec as a step loads it.
template <class M, bool kWhole> struct AsWhole {
  using type = M;
};
template <class M> struct AsWhole<M, true> {
  using type = typename M::Whole;
};

// One block: its number in the tensor and its elements.
template <class Real> struct BlockAt {
  int64_t block;
  Real *p;
  const Real *g;
};

template <class Real, class Rule, class M, class Slow, class Var, class Probe>
struct Pipeline : Waiting<0, M::kStaged>, Waiting<1, Slow::kStaged>, Waiting<2, Var::kStaged> {
  using MWaiting = Waiting<0, M::kStaged>;
  using SlowWaiting = Waiting<1, Slow::kStaged>;
  using VWaiting = Waiting<2, Var::kStaged>;
  using Sums = RunningSums<Real, Probe::kSums, M::kAddsUp>;
  // A slow average beside it has levels of its own.
  static constexpr bool kByLevel = M::kWholeLevels && !Slow::kPresent;
  using InStep = typename AsWhole<M, kByLevel>::type;
  const BlockRun &run;
  Openings<M> m_opening;
  Openings<Var> v_opening;
  Summaries<Var> v_summary;
  Summaries<M> m_summary;
  Summaries<Slow> slow_summary;

  const BlockContext first_context; // that of others differs in their random bits

  COSMIC_METHOD explicit Pipeline(const BlockRun &run)
      : run(run), first_context(*run.coefficients, run.first_block, kBlock, run.matrix) {}

  COSMIC_METHOD BlockContext context_of(const BlockAt<Real> &here) const {
    BlockContext context = first_context;
    context.random = BlockRandom(run.coefficients->random_key, here.block + run.shift);
    context.count = kBlock; // which the compiler is to know
    return context;
  }

  // Of a pass over some blocks, whose gaps the hardware's prefetching does not see through.
  COSMIC_METHOD void ask_ahead(const BlockAt<Real> &here, const Probe &probe) const {
    constexpr int64_t kAhead = 8;
    if (here.block + kAhead >= run.first_block + run.count / kBlock) return;
    if (!probe.wants(run.looks[here.block + kAhead])) return;
    const int64_t line = 64 / (int64_t)sizeof(Real);
    for (int64_t k = 0; k < kBlock; k += line) __builtin_prefetch(here.g + kAhead * kBlock + k);
    M::ask(run.m, here.block + kAhead);
    Var::ask(run.v, here.block + kAhead);
  }

  // Steps a block, the k-th of those that are encoded together. Rule, probe and sums are the
  // caller's own, for registers: this object's waiting values are written through pointers, so that
  // nothing in it is sure to stay.
  template <Pass kPass> COSMIC_METHOD void step(int k, const BlockAt<Real> &here, const Rule &rule,
                                                const Probe &probe, Sums &sums) {
    if constexpr (Probe::kSelects) {
      ask_ahead(here, probe);
      if (!probe.wants(run.looks[here.block])) return;
    }
    if constexpr (Var::kMatrix)
      if (Var::InRow::fits(*run.matrix, here.block))
        return step_with<kPass, typename Var::InRow>(k, here, rule, probe, sums);
    step_with<kPass, Var>(k, here, rule, probe, sums);
  }

  COSMIC_METHOD void open_ahead(int k, const BlockAt<Real> &here) {
    const Coefficients &c = *run.coefficients;
    const BlockContext context = context_of(here);
    m_opening.open(k, run.m, here.block, context, (float)(Rule::kDecaysM ? c.beta1 : 1.0));
    v_opening.open(k, run.v, here.block, context, (float)c.beta2);
  }

  template <Pass kPass, class V> COSMIC_METHOD void
  step_with(int k, const BlockAt<Real> &here, const Rule &rule, const Probe &probe, Sums &sums) {
    const Coefficients &c = *run.coefficients;
    BlockContext context = context_of(here);
    const Real beta1 = (Real)(Rule::kDecaysM ? c.beta1 : 1.0);
    auto m =
        m_opening.template at<InStep>(k, run.m, here.block, context, 0, beta1, MWaiting::of(k));
    Slow slow(run.m_slow, here.block, context, 1, (Real)c.beta_slow, SlowWaiting::of(k));
    if constexpr (kByLevel) {
      context.v_scale_before *= m.level();
      context.eps *= m.level();
    }
    auto v =
        v_opening.template at<V>(k, run.v, here.block, context, 2, (Real)c.beta2, VWaiting::of(k));
    typename Probe::Look look(probe);
    if constexpr (kPass == Pass::step && kMomentsApart<Real, Rule, Probe>)
      step_apart(rule, context, here.p, here.g, m, slow, v, sums);
    else
      step_block<kPass>(rule, probe, context, here.p, here.g, m, slow, v, look, sums);
    look.close(run.looks, here.block);
    if constexpr (kPass == Pass::step) {
      m_summary.of[k] = m.template measure<false>(run.m, here.block, context, kBlock);
      slow_summary.of[k] = slow.template measure<false>(run.m_slow, here.block, context, kBlock);
      v_summary.of[k] = v.template measure<false>(run.v, here.block, context, kBlock);
    }
  }

  // The first `together` blocks from here on, one slot after the other: what one block's encoding
  // waits for, the next one's may begin beside.
  COSMIC_METHOD void encode(int together, int64_t before, Sums &sums) {
    v_summary.complete(together);
    slow_summary.complete(together);
    m_summary.complete(together);
    if constexpr (M::kPersistedUnits) {
      const auto each = [&](auto visit) COSMIC_LAMBDA {
        for (int k = 0; k < together; ++k) {
          const BlockAt<Real> here = block_at(before + k);
          visit(k, here.block, context_of(here));
        }
      };
      uint32_t means[kStageBlocks];
      each([&](int k, int64_t at, const BlockContext &context) COSMIC_LAMBDA {
        Var::encode(run.v, at, context, 2, VWaiting::of(k), v_summary[k]);
      });
      each([&](int k, int64_t at, const BlockContext &context)
               COSMIC_LAMBDA { means[k] = to_persisted_units(k, at, context); });
      each([&](int k, int64_t at, const BlockContext &context) COSMIC_LAMBDA {
        sums.encoded =
            sums.encoded + M::encode_about(run.m, at, context, 0, MWaiting::of(k), means[k]);
      });
    } else {
      for (int k = 0; k < together; ++k) encode_block(k, block_at(before + k));
    }
  }
  COSMIC_METHOD void encode_block(int k, const BlockAt<Real> &here) {
    const int64_t at = here.block;
    const BlockContext context = context_of(here);
    Var::encode(run.v, at, context, 2, VWaiting::of(k), v_summary[k]);
    Slow::encode(run.m_slow, at, context, 1, SlowWaiting::of(k), slow_summary[k]);
    M::encode(run.m, at, context, 0, MWaiting::of(k), m_summary[k]);
  }

  // The second moment is encoded by now: the waiting values become units of what will be decoded.
  COSMIC_METHOD uint32_t to_persisted_units(int k, int64_t block, BlockContext context) {
    context.v_scale_before = context.v_scale;
    const F32 scale = F32::splat(context.v_scale), eps = F32::splat(context.eps);
    const F32 corrected = F32::splat(1.0f / context.m_correction);
    Var v(run.v, block, context, 2, 1.0f, nullptr);
    if constexpr (Var::kCompletes) v.take_units(v_summary[k], context.v_scale, context.eps);
    if constexpr (Var::kFewUnits) v.invert_units(corrected);
    typename M::Gathered gathered;
    float *values = MWaiting::of(k);
    for_each_group([&](auto group) COSMIC_LAMBDA {
      float *at = values + decltype(group)::index * kLanes;
      const F32 unit = v.unit(group, scale, eps), m = F32::load(at);
      const F32 value = Var::kFewUnits ? m * unit : m * corrected / unit;
      value.store(at);
      gathered.see(group, value);
    });
    return gathered.means();
  }

  COSMIC_METHOD BlockAt<Real> block_at(int64_t before) const { // this many blocks into the run
    return {run.first_block + before, run.param ? (Real *)run.param + before * kBlock : nullptr,
            (const Real *)run.gradient + before * kBlock};
  }

  template <Pass kPass>
  COSMIC_METHOD void blocks(int64_t count, const Rule &rule, const Probe &probe, Sums &sums) {
    for (int64_t b = 0; b < count; b += kStageBlocks) {
      const int together = count - b < kStageBlocks ? (int)(count - b) : kStageBlocks;
      for (int k = 0; k < together; ++k) open_ahead(k, block_at(b + k));
      for (int k = 0; k < together; ++k) step<kPass>(k, block_at(b + k), rule, probe, sums);
      if constexpr (kPass == Pass::step) encode(together, b, sums);
    }
  }
};

template <Pass kPass, class Real, class Rule, class M, class Slow, class Var, class Probe>
COSMIC_INLINE void pass_over(const BlockRun &run) {
  Pipeline<Real, Rule, M, Slow, Var, Probe> pipeline(run);
  const Rule rule(*run.coefficients);
  const Probe probe(*run.coefficients);
  typename decltype(pipeline)::Sums sums(*run.sums);
  pipeline.template blocks<kPass>(run.count / kBlock, rule, probe, sums);
  sums.store(run.sums);
}

template <class Real, class Rule, class M, class Slow, class Var, class Probe>
void inlined_step(const BlockRun &run) {
  pass_over<Pass::step, Real, Rule, M, Slow, Var, Probe>(run);
}

template <class Real, class Rule, class M, class Slow, class Var, class Probe>
void inlined_measure(const BlockRun &run) {
  static_assert(!Var::kMatrix, "rows and columns move on by storing");
  if constexpr (Probe::kLooksTwice) {
    if (run.coefficients->first_look)
      pass_over<Pass::measure, Real, Rule, M, Slow, Var, typename Probe::FirstLook>(run);
    else
      pass_over<Pass::measure, Real, Rule, M, Slow, Var, typename Probe::SecondLook>(run);
  } else {
    pass_over<Pass::measure, Real, Rule, M, Slow, Var, Probe>(run);
  }
}

// ---- the hot rows of the table ------------------------------------------------------------------

#if defined(COSMIC_INLINE_EVERY_ROW) // to measure which are to be hot
constexpr bool kEveryRow = true;
#else
constexpr bool kEveryRow = false;
#endif

using RunPass = void (*)(const BlockRun &run);

template <Heat kHeat> constexpr bool kInlined = kInlining && (kEveryRow || kHeat == Heat::hot);

template <Heat kHeat, class Real, class Rule, class M, class Slow, class Var, class Probe>
constexpr RunPass step_of_row() {
  if constexpr (kInlined<kHeat>)
    return inlined_step<Real, Rule, M, Slow, Var, Probe>;
  else
    return nullptr;
}

template <Heat kHeat, class Real, class Rule, class M, class Slow, class Var, class Probe>
constexpr RunPass measure_of_row() {
  if constexpr (kInlined<kHeat> && Probe::kMeasures && !Var::kMatrix)
    return inlined_measure<Real, Rule, M, Slow, Var, Probe>;
  else
    return nullptr;
}

// The arithmetic of parts by their names.
struct RuleOf {
#define COSMIC_NAMED(name, Rule) template <class Real, bool kSlow> using name = Rule<Real, kSlow>;
  COSMIC_RULES(COSMIC_NAMED)
#undef COSMIC_NAMED
};
struct FirstOf {
  using none = None;
#define COSMIC_NAMED(name, First, Second, Probe) using name = First;
  COSMIC_CODECS(COSMIC_NAMED)
#undef COSMIC_NAMED
};
struct SecondOf {
  using none = None;
#define COSMIC_NAMED(name, First, Second, Probe) using name = Second;
  COSMIC_CODECS(COSMIC_NAMED)
#undef COSMIC_NAMED
};
template <class Real> struct ProbeOf {
  using none = NoProbe<Real>;
#define COSMIC_NAMED_GATE(name, Probe) using name = Probe<Real>;
#define COSMIC_NAMED_CODEC(name, First, Second, Probe) using name = Probe<Real>;
  COSMIC_GATES(COSMIC_NAMED_GATE)
  COSMIC_CODECS(COSMIC_NAMED_CODEC)
#undef COSMIC_NAMED_GATE
#undef COSMIC_NAMED_CODEC
};

// By the row of the table; null where it is not inlined.
#define COSMIC_PARTS_OF_ROW(Real, rule, m, slow, v, probe)                                         \
  Real, RuleOf::rule<Real, FirstOf::slow::kPresent>, FirstOf::m, FirstOf::slow, SecondOf::v,       \
      ProbeOf<Real>::probe
#define COSMIC_STEP(Real, rule, m, slow, v, probe, heat)                                           \
  step_of_row<Heat::heat, COSMIC_PARTS_OF_ROW(Real, rule, m, slow, v, probe)>(),
constexpr RunPass kInlinedSteps[] = {COSMIC_COMBINATIONS(COSMIC_STEP)};
#undef COSMIC_STEP
#define COSMIC_MEASURE(Real, rule, m, slow, v, probe, heat)                                        \
  measure_of_row<Heat::heat, COSMIC_PARTS_OF_ROW(Real, rule, m, slow, v, probe)>(),
constexpr RunPass kInlinedMeasures[] = {COSMIC_COMBINATIONS(COSMIC_MEASURE)};
#undef COSMIC_MEASURE
#undef COSMIC_PARTS_OF_ROW

} // namespace cosmic::COSMIC_TARGET
