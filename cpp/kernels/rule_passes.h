// The pass of a rule over a batch: from gradient, parameter and decoded slots to the new ones.
// Compiled once for each rule, with and without a slow average, and shared by all combinations.
#pragma once

#include "kernels/batch.h"
#include "parts/list.h"

namespace cosmic::COSMIC_TARGET {

// Where a batch has the values of a slot, in a buffer or in the state itself, and what they are
// still to be multiplied with.
template <class Real> struct ValuesOf {
  Real *at, decay;
};
template <class Real> struct Values {
  ValuesOf<Real> m, m_slow, v;
};

// `kExtras`: also units and roots, which some codecs keep instead of the moments.
template <Pass kPass, bool kExtras, class Rule, class Real> COSMIC_CALL void
rule_pass(const Coefficients &coefficients, Batch<Real> &batch, const Values<Real> &values) {
  using V = Lanes<Real>;
  const Rule rule(coefficients);
  Real *const p = batch.p, *const m = values.m.at, *const m_slow = values.m_slow.at;
  Real *const v = values.v.at;
  const Real *const g = batch.g;
  const int64_t count = batch.count;
  const V m_decay = V::splat(values.m.decay), v_decay = V::splat(values.v.decay);
  const V slow_decay = V::splat(values.m_slow.decay);
  V abs_gradient = V::load(batch.sums.abs_gradient);
  V square_update = V::load(batch.sums.square_update);
  for (int64_t k = 0; k < batch.blocks * kBlock; k += kLanes) {
    __builtin_prefetch((const char *)(g + k) + kPrefetchBytes);
    if constexpr (kPass == Pass::step)
      if (batch.asks_for_param) __builtin_prefetch((const char *)(p + k) + kPrefetchBytes, 1);
    const V gradient = V::load(g + k);
    Slots<V> slots;
    if constexpr (Rule::kFirst) slots.m = m_decay * V::load(m + k);
    if constexpr (Rule::kSlow) slots.m_slow = slow_decay * V::load(m_slow + k);
    if constexpr (Rule::kSecond) slots.v = v_decay * V::load(v + k);
    V u;
    if constexpr (kPass == Pass::step)
      rule.update(V::load(p + k), gradient, slots, u).store(p + k);
    else
      rule.update(V::splat(Real(0)), gradient, slots, u);
    if constexpr (Rule::kFirst) slots.m.store(m + k);
    if constexpr (Rule::kSlow) slots.m_slow.store(m_slow + k);
    if constexpr (Rule::kSecond) slots.v.store(v + k);
    if constexpr (Rule::kShares) slots.signal_share.store(batch.shares + k);
    abs_gradient = abs_gradient + abs(gradient);
    settle(abs_gradient);
    if constexpr (kPass == Pass::step) {
      if constexpr (Rule::kSecond && kExtras) slots.root.store(batch.roots + k);
      if constexpr (Rule::kFirst && Rule::kSecond && kExtras)
        slots.denominator.store(batch.units + k);
      const V counted = inside_of<Real>(count, u, k);
      square_update = square_update + counted * counted;
      settle(square_update);
    }
  }
  abs_gradient.store(batch.sums.abs_gradient);
  square_update.store(batch.sums.square_update);
}

// ---- tables -------------------------------------------------------------------------------------

template <class Real> using RulePass = void (*)(const Coefficients &coefficients,
                                                Batch<Real> &batch, const Values<Real> &values);

template <class Real> struct RulePasses {
  RulePass<Real> step = nullptr, step_with_extras = nullptr, measure = nullptr;
  bool decays_m = false, shares = false;
};

template <class Real, class Rule, bool kSlow> constexpr RulePasses<Real> rule_passes() {
  RulePasses<Real> out;
  if constexpr (kSlow == Rule::kSlow) { // not every rule takes a slow average
    out.step = rule_pass<Pass::step, false, Rule, Real>;
    if constexpr (sizeof(Real) == 4) // no codec of doubles is in units, or keeps roots
      out.step_with_extras = rule_pass<Pass::step, true, Rule, Real>;
    out.measure = rule_pass<Pass::measure, false, Rule, Real>;
    out.decays_m = Rule::kDecaysM;
    out.shares = Rule::kShares;
  }
  return out;
}

// Without and with a slow average.
#define COSMIC_RULE(name, Rule)                                                                    \
  {rule_passes<Real, Rule<Real, false>, false>(), rule_passes<Real, Rule<Real, true>, true>()},
template <class Real> constexpr RulePasses<Real> kRulePasses[][2] = {COSMIC_RULES(COSMIC_RULE)};
#undef COSMIC_RULE

} // namespace cosmic::COSMIC_TARGET
