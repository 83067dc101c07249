// Softmax of a row, and the gradient through it.
#pragma once

#include "exact/elementary.h"

namespace cosmic::COSMIC_TARGET {

template <class Real> constexpr Real kMinusInfinity = -(Real)__builtin_inf();

// As for_each_group_of a row's first elements; what follows in the row may be read and written.
template <class Visit>
COSMIC_INLINE void for_each_seen_group(int64_t seen, int64_t columns, Visit visit) {
  const int64_t whole = seen / kLanes * kLanes;
  for (int64_t k = 0; k < whole; k += kLanes) visit(k, WholeGroup{});
  if (whole == seen) return;
  if (whole + kLanes <= columns)
    visit(whole, VeiledGroup{seen - whole});
  else
    visit(whole, PartOfGroup{seen - whole});
}

// The greatest element, NaNs left aside; -infinity of none.
template <class Real>
COSMIC_INLINE Real greatest_in_row(const Real *x, int64_t count, int64_t columns) {
  using V = Lanes<Real>;
  constexpr Real kLeast = kMinusInfinity<Real>;
  V most[2] = {V::splat(kLeast), V::splat(kLeast)};
  int64_t k = 0;
  for (; k + 2 * kLanes <= count; k += 2 * kLanes)
    for (int half = 0; half < 2; ++half)
      most[half] = greater(V::load(x + k + half * kLanes), most[half]);
  for_each_seen_group(count - k, columns - k, [&](int64_t at, auto group) COSMIC_LAMBDA {
    most[0] = greater(group.load(x + k + at, kLeast), most[0]);
  });
  return greatest_of(greater(most[1], most[0]));
}

template <class Real> COSMIC_INLINE bool any_nan(const Real *x, int64_t count) {
  for (int64_t k = 0; k < count; ++k)
    if (__builtin_isnan(x[k])) return true;
  return false;
}

// The largest exponent is 0. A row that sees nothing above -infinity has no softmax and gets 0.
template <class Real>
void softmax_row(const Real *x, int64_t seen, int64_t columns, double scale, Real *out) {
  using V = Lanes<Real>;
  const Real most = greatest_in_row(x, seen, columns);
  if (most == kMinusInfinity<Real> && !any_nan(x, seen)) {
    for (int64_t k = 0; k < columns; ++k) out[k] = 0;
    return;
  }
  const V shift = V::splat(most), factor = V::splat((Real)scale);
  F64 sum = F64::splat(0);
  for_each_seen_group(seen, columns, [&](int64_t k, auto group) COSMIC_LAMBDA {
    const V e = exp_below_0((group.load(x + k, kMinusInfinity<Real>) - shift) * factor);
    group.store(e, out + k);
    sum = sum + widen(group.inside(e));
  });
  const V over = V::splat((Real)(1 / sum_of(sum)));
  for_each_seen_group(seen, columns, [&](int64_t k, auto group) COSMIC_LAMBDA {
    group.store(group.load(out + k) * over, out + k);
  });
  for (int64_t k = seen; k < columns; ++k) out[k] = 0;
}

template <class Real>
void softmax_back_row(const Real *y, const Real *grad, int64_t columns, double scale, Real *out) {
  using V = Lanes<Real>;
  F64 sum = F64::splat(0);
  for_each_group_of(columns, [&](int64_t k, auto group) COSMIC_LAMBDA {
    sum = sum + widen(group.load(y + k)) * widen(group.load(grad + k));
  });
  const V mean = V::splat((Real)sum_of(sum)), factor = V::splat((Real)scale);
  for_each_group_of(columns, [&](int64_t k, auto group) COSMIC_LAMBDA {
    group.store(factor * group.load(y + k) * (group.load(grad + k) - mean), out + k);
  });
}

} // namespace cosmic::COSMIC_TARGET
