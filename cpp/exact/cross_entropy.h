// Cross-entropy of a row of logits: with the smoothing s and lse = log(sum(e^x)),
//
//     loss = (1 - s) (lse - x[target]) + s (lse - mean(x)).
#pragma once

#include "exact/softmax.h"

namespace cosmic::COSMIC_TARGET {

COSMIC_INLINE double log_of_one(double x) {
  alignas(64) double lanes[kLanes];
  log(F64::splat(x)).store(lanes);
  return lanes[0];
}

template <class Real> void cross_entropy_row(const LogitRow<Real> &row, Real *loss, Real *lse) {
  using V = Lanes<Real>;
  const Real *const x = row.x, most = greatest_in_row(x, row.classes, row.classes);
  const V shift = V::splat(most);
  F64 sum = F64::splat(0), plain = F64::splat(0);
  for_each_group_of(row.classes, [&](int64_t k, auto group) COSMIC_LAMBDA {
    sum = sum + widen(group.inside(exp_below_0(group.load(x + k, kMinusInfinity<Real>) - shift)));
  });
  const double whole = most + log_of_one(sum_of(sum));
  double of_row = whole - x[row.target];
  if (row.smoothing != 0) {
    for_each_group_of(row.classes, [&](int64_t k, auto group)
                                       COSMIC_LAMBDA { plain = plain + widen(group.load(x + k)); });
    const double mean = sum_of(plain) / (double)row.classes;
    of_row = (1 - row.smoothing) * of_row + row.smoothing * (whole - mean);
  }
  *loss = (Real)of_row;
  *lse = (Real)whole;
}

template <class Real>
void cross_entropy_back_row(const LogitRow<Real> &row, Real lse, Real grad, Real *out) {
  using V = Lanes<Real>;
  const Real *const x = row.x;
  const double everywhere = row.smoothing / (double)row.classes;
  const V shift = V::splat(lse), factor = V::splat(grad), less = splat<V>(everywhere);
  for_each_group_of(row.classes, [&](int64_t k, auto group) COSMIC_LAMBDA {
    group.store((exp(group.load(x + k) - shift) - less) * factor, out + k);
  });
  alignas(64) Real lanes[kLanes]; // the target's, once more
  (exp(V::splat(x[row.target]) - shift) - splat<V>(everywhere + (1 - row.smoothing))).store(lanes);
  out[row.target] = lanes[0] * grad;
}

} // namespace cosmic::COSMIC_TARGET
