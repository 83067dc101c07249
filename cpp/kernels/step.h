// The block pipeline: load p and g, decode the slots, apply the rule, store p; then encode the
// slots of a few blocks together. One pass over memory, everything between in registers and L1.
#pragma once

#include "codecs/bf16.h"
#include "codecs/factored.h"
#include "codecs/full.h"
#include "codecs/none.h"
#include "codecs/q8.h"
#include "codecs/rowmean.h"
#include "codecs/u1.h"
#include "codecs/u2.h"
#include "codecs/u4.h"
#include "codecs/v4.h"
#include "kernels/kernels.h"
#include "kernels/sums.h"
#include "kernels/tail_image.h"
#include "rules/adam.h"
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

template <bool kTail, class Real, class Rule, class M, class Slow, class Var>
COSMIC_INLINE void step_block(const Rule &rule, const BlockContext &context, Real *p, const Real *g,
                              M &m, Slow &m_slow, Var &v, int64_t count, RunningSums<Real> &sums) {
  using V = Lanes<Real>;
  const V scale_before = V::splat((Real)context.v_scale_before), eps = V::splat((Real)context.eps);
  for_each_group([&](auto group) __attribute__((always_inline)) {
    constexpr int i = decltype(group)::index;
    __builtin_prefetch((const char *)(g + i * kLanes) + kPrefetchBytes);
    if constexpr (!M::kPresent || M::kCompressed || Var::kCompressed)
      __builtin_prefetch((const char *)(p + i * kLanes) + kPrefetchBytes, 1);
    const V gradient = V::load(g + i * kLanes);
    Slots<V> slots;
    v.load(group, slots.v);
    m.load(group, slots.m);
    m_slow.load(group, slots.m_slow);
    if constexpr (M::kUpdateUnits) {
      const V unit = v.unit(group, scale_before, eps);
      slots.m = slots.m * unit;
      if constexpr (Slow::kPresent) slots.m_slow = slots.m_slow * unit;
    }
    V u;
    rule.update(V::load(p + i * kLanes), gradient, slots, u).store(p + i * kLanes);
    if constexpr (M::kUpdateUnits) {
      slots.m = slots.m / slots.denominator;
      if constexpr (Slow::kPresent) slots.m_slow = slots.m_slow / slots.denominator;
    }
    m.store(group, slots.m);
    m_slow.store(group, slots.m_slow);
    v.store(group, slots.v);
    if (kTail && count < (i + 1) * kLanes) u = zero_past<Real>(u, count, i);
    sums.abs_gradient = sums.abs_gradient + abs(gradient);
    sums.square_update = sums.square_update + u * u;
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

template <class Real, class Rule, class M, class Slow, class Var>
struct Pipeline : Waiting<0, M::kStaged>, Waiting<1, Slow::kStaged>, Waiting<2, Var::kStaged> {
  using MWaiting = Waiting<0, M::kStaged>;
  using SlowWaiting = Waiting<1, Slow::kStaged>;
  using VWaiting = Waiting<2, Var::kStaged>;
  const BlockRun &run;
  typename Var::Summary v_summary[kStageBlocks];
  typename M::Summary m_summary[kStageBlocks];
  typename Slow::Summary slow_summary[kStageBlocks];

  COSMIC_METHOD explicit Pipeline(const BlockRun &run) : run(run) {}

  COSMIC_METHOD BlockRandom random(int64_t block) const {
    return BlockRandom(run.coefficients->random_key, block);
  }

  // Steps a block, the k-th of those that are encoded together. Rule and sums are the caller's own,
  // for registers: this object's waiting values are written through pointers, so that nothing in it
  // is sure to stay.
  template <bool kTail> COSMIC_METHOD void step(int k, const BlockAt<Real> &here, const Rule &rule,
                                                RunningSums<Real> &sums) {
    if constexpr (Var::kMatrix && !kTail)
      if (Var::InRow::fits(*run.matrix, here.block))
        return step_with<typename Var::InRow, kTail>(k, here, rule, sums);
    step_with<Var, kTail>(k, here, rule, sums);
  }

  template <class V, bool kTail> COSMIC_METHOD void
  step_with(int k, const BlockAt<Real> &here, const Rule &rule, RunningSums<Real> &sums) {
    const Coefficients &c = *run.coefficients;
    const BlockContext context{random(here.block), (float)c.v_scale_before, (float)c.eps,
                               run.matrix};
    M m(here.m, here.at, context, 0, (Real)c.beta1, MWaiting::of(k));
    Slow slow(here.m_slow, here.at, context, 1, (Real)c.beta_slow, SlowWaiting::of(k));
    V v(here.v, V::kMatrix ? here.block : here.at, context, 2, (Real)c.beta2, VWaiting::of(k));
    step_block<kTail>(rule, context, here.p, here.g, m, slow, v, here.count, sums);
    m_summary[k] = m.template measure<kTail>(here.m, here.at, context, here.count);
    slow_summary[k] = slow.template measure<kTail>(here.m_slow, here.at, context, here.count);
    v_summary[k] = v.template measure<kTail>(here.v, here.at, context, here.count);
  }

  COSMIC_METHOD void encode(int k, const BlockAt<Real> &here) {
    const BlockRandom bits = random(here.block);
    M::encode(here.m, here.at, bits, 0, MWaiting::of(k), m_summary[k], here.count);
    Slow::encode(here.m_slow, here.at, bits, 1, SlowWaiting::of(k), slow_summary[k], here.count);
    Var::encode(here.v, here.at, bits, 2, VWaiting::of(k), v_summary[k], here.count);
  }

  // A whole block, `before` blocks into the run.
  COSMIC_METHOD BlockAt<Real> whole(int64_t before) const {
    const int64_t block = run.first_block + before;
    return {block,
            block,
            run.m,
            run.m_slow,
            run.v,
            (Real *)run.param + before * kBlock,
            (const Real *)run.gradient + before * kBlock,
            kBlock};
  }

  COSMIC_METHOD void whole_blocks(int64_t blocks, const Rule &rule, RunningSums<Real> &sums) {
    for (int64_t b = 0; b < blocks; b += kStageBlocks) {
      const int together = blocks - b < kStageBlocks ? (int)(blocks - b) : kStageBlocks;
      for (int k = 0; k < together; ++k) step<false>(k, whole(b + k), rule, sums);
      for (int k = 0; k < together; ++k) encode(k, whole(b + k));
    }
  }

  COSMIC_METHOD void partial_block(int64_t before, int64_t count, const Rule &rule,
                                   RunningSums<Real> &sums) {
    const BlockAt<Real> home = whole(before);
    TailImage<M> m(run.m, home.block, count);
    TailImage<Slow> slow(run.m_slow, home.block, count);
    TailImage<Var> v(run.v, home.block, count);
    const BlockAt<Real> image{home.block, 0,      m.planes, slow.planes,
                              v.planes,   home.p, home.g,   count};
    step<true>(0, image, rule, sums);
    encode(0, image);
    m.write_back();
    slow.write_back();
    v.write_back();
  }
};

template <class Real, class Rule, class M, class Slow, class Var>
void step_run(const BlockRun &run) {
  Pipeline<Real, Rule, M, Slow, Var> pipeline(run);
  const int64_t whole = run.count / kBlock, tail = run.count % kBlock;
  const Rule rule(*run.coefficients);
  RunningSums<Real> sums(*run.sums);
  pipeline.whole_blocks(whole, rule, sums);
  if (tail) pipeline.partial_block(whole, tail, rule, sums);
  sums.store(run.sums);
  note_nonfinite((const Real *)run.gradient, run.count, run.sums);
}

} // namespace cosmic::COSMIC_TARGET
