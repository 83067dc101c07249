// A whole block with the second moment before the first: all of it becomes denominators, then all
// of these updates. What one half holds in registers the other need not, roots and quotients of
// many groups are under way at once, and the bits are those of step_block.
#pragma once

#include <type_traits>

#include "gates/no_probe.h"
#include "kernels/pass.h"
#include "rules/slots.h"

namespace cosmic::COSMIC_TARGET {

// Whether a pass that steps can be cut so: float arithmetic, and nothing that wants both moments of
// an element at once.
template <class Real, class Rule, class Probe> constexpr bool kMomentsApart =
    kInlining && std::is_same<Real, float>::value && Rule::kMomentsApart && Probe::kSums == 0 &&
    std::is_same<typename Probe::Look, NoLook>::value;

template <class Rule, class M, class Slow, class Var, class Sums>
COSMIC_INLINE void step_apart(const Rule &rule, const BlockContext &context, float *p,
                              const float *g, M &m, Slow &m_slow, Var &v, Sums &sums) {
  constexpr bool kUnitsNow = M::kUpdateUnits && !M::kPersistedUnits;
  // Addresses that the compiler cannot see through: else it keeps one for every group, and puts off
  // what is stored here until it is read.
  alignas(64) float own_denominators[kBlock], own_units[M::kUpdateUnits ? kBlock : 1];
  float *const denominators = held(own_denominators), *const units = held(own_units);
  const char *const g_ahead = held((const char *)g + kPrefetchBytes);
  char *const p_ahead = held((char *)p + kPrefetchBytes);

  {
    const Rule second = rule.held();
    const F32 scale_before = held(F32::splat(context.v_scale_before));
    const F32 eps = held(F32::splat(context.eps));
    F32 abs_gradient = sums.abs_gradient;
    for_each_group([&](auto group) COSMIC_LAMBDA {
      constexpr int at = decltype(group)::index * kLanes;
      __builtin_prefetch(g_ahead + at * sizeof(float));
      const F32 gradient = F32::load(g + at);
      Slots<F32> slots;
      v.load(group, slots.v);
      if constexpr (M::kUpdateUnits) v.unit(group, scale_before, eps).store(units + at);
      second.update_second(gradient, slots);
      slots.denominator.store(denominators + at);
      if constexpr (Var::kKeepsRoots)
        v.store(group, slots.root);
      else
        v.store(group, slots.v);
      abs_gradient = abs_gradient + abs(gradient);
      settle(abs_gradient);
    });
    sums.abs_gradient = abs_gradient;
  }
  // Loads of the second half would hold registers in the first. Measured: with rows and columns
  // they had better begin there.
  if constexpr (!Var::kMatrix) __asm__ volatile("" ::: "memory");
  {
    const Rule first = rule.held();
    F32 square_update = sums.square_update;
    for_each_group([&](auto group) COSMIC_LAMBDA {
      constexpr int at = decltype(group)::index * kLanes;
      if constexpr (!M::kPresent || M::kCompressed || Var::kCompressed)
        __builtin_prefetch(p_ahead + at * sizeof(float), 1);
      const F32 gradient = F32::load(g + at);
      Slots<F32> slots;
      load_group(m, group, gradient, slots.m);
      load_group(m_slow, group, gradient, slots.m_slow);
      if constexpr (M::kUpdateUnits) {
        const F32 unit = F32::load(units + at);
        slots.m = slots.m * unit;
        if constexpr (Slow::kPresent) slots.m_slow = slots.m_slow * unit;
      }
      slots.denominator = F32::load(denominators + at);
      F32 u;
      first.update_first(F32::load(p + at), gradient, slots, u).store(p + at);
      square_update = square_update + u * u;
      settle(square_update);
      if constexpr (kUnitsNow) {
        slots.m = slots.m / slots.denominator;
        if constexpr (Slow::kPresent) slots.m_slow = slots.m_slow / slots.denominator;
      }
      store_group(m, group, gradient, slots.m);
      store_group(m_slow, group, gradient, slots.m_slow);
    });
    sums.square_update = square_update;
  }
}

} // namespace cosmic::COSMIC_TARGET
