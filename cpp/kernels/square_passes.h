// Passes that add up the squares of a whole tensor: of the parameter, and, before a step, of what
// it is about to be moved by.
#pragma once

#include "kernels/rule_passes.h"

namespace cosmic::COSMIC_TARGET {

// A block's squares are added up by themselves first: the chains of neighbours do not wait for each
// other.
template <class Real> struct SquareSum {
  using V = Lanes<Real>;
  V all, of_block = V::splat(Real(0));

  COSMIC_METHOD explicit SquareSum(const Real *lanes) : all(V::load(lanes)) {}
  COSMIC_METHOD void add(V x) { of_block = of_block + x * x; }
  COSMIC_METHOD void close_block() {
    all = all + of_block;
    of_block = V::splat(Real(0));
  }
};

// Of whole blocks, and of a partial one.
template <class Real>
COSMIC_CALL void square_pass(const Real *p, int64_t blocks, int64_t count, Real *lanes) {
  using V = Lanes<Real>;
  SquareSum<Real> sum(lanes);
  const int64_t whole = count / kBlock;
  for (int64_t b = 0; b < whole; ++b) {
    const Real *const at = p + b * kBlock;
    for_each_group([&](auto group) COSMIC_LAMBDA { sum.add(V::load(at + group.index * kLanes)); });
    sum.close_block();
  }
  if (whole < blocks) {
    for (int64_t k = whole * kBlock; k < blocks * kBlock; k += kLanes)
      sum.add(inside_of<Real>(count, V::load(p + k), k));
    sum.close_block();
  }
  sum.all.store(lanes);
}

// What a step would move by, beside the parameter and the gradient: values are read where they lie,
// and nothing is written but sums.
template <class Rule, class Real> COSMIC_CALL void
update_pass(const Coefficients &coefficients, Batch<Real> &batch, const Values<Real> &values) {
  using V = Lanes<Real>;
  const Rule rule(coefficients);
  const Real *const m = values.m.at, *const m_slow = values.m_slow.at, *const v = values.v.at;
  const Real *const g = batch.g, *const p = batch.p;
  const int64_t count = batch.count;
  const V m_decay = V::splat(values.m.decay), v_decay = V::splat(values.v.decay);
  const V slow_decay = V::splat(values.m_slow.decay);
  V abs_gradient = V::load(batch.sums.abs_gradient);
  SquareSum<Real> update(batch.sums.square_update), param(batch.sums.square_param);
  for (int b = 0; b < batch.blocks; ++b) {
    for (int64_t k = b * kBlock; k < (b + 1) * kBlock; k += kLanes) {
      const V gradient = V::load(g + k);
      Slots<V> slots;
      if constexpr (Rule::kFirst) {
        slots.m = m_decay * V::load(m + k);
      }
      if constexpr (Rule::kSlow) slots.m_slow = slow_decay * V::load(m_slow + k);
      if constexpr (Rule::kSecond) {
        slots.v = v_decay * V::load(v + k);
      }
      V u;
      rule.update(V::splat(Real(0)), gradient, slots, u);
      abs_gradient = abs_gradient + abs(gradient);
      settle(abs_gradient);
      update.add(inside_of<Real>(count, u, k));
      param.add(inside_of<Real>(count, V::load(p + k), k));
    }
    update.close_block();
    param.close_block();
  }
  abs_gradient.store(batch.sums.abs_gradient);
  update.all.store(batch.sums.square_update);
  param.all.store(batch.sums.square_param);
}

template <class Real, class Rule, bool kSlow> constexpr RulePass<Real> update_pass_of() {
  if constexpr (kSlow == Rule::kSlow)
    return update_pass<Rule, Real>;
  else
    return nullptr;
}

// By RuleAt, without and with a slow average.
#define COSMIC_RULE(name, Rule)                                                                    \
  {update_pass_of<Real, Rule<Real, false>, false>(),                                               \
   update_pass_of<Real, Rule<Real, true>, true>()},
template <class Real> constexpr RulePass<Real> kUpdatePasses[][2] = {COSMIC_RULES(COSMIC_RULE)};
#undef COSMIC_RULE

} // namespace cosmic::COSMIC_TARGET
