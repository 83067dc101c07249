// LayerNorm and RMSNorm of a row, and the gradients of it. Mean and mean square are taken in
// double.
#pragma once

#include "exact/exact_kernels.h"
#include "exact/numbers.h"

namespace cosmic::COSMIC_TARGET {

template <class Real> void layer_norm_row(const NormRow<Real> &row) {
  using V = Lanes<Real>;
  const Real *const x = row.x, *const weight = row.weight, *const bias = row.bias;
  const auto columns = (double)row.columns;
  F64 sum = F64::splat(0), squares = F64::splat(0);
  for_each_group_of(row.columns, [&](int64_t k, auto group)
                                     COSMIC_LAMBDA { sum = sum + widen(group.load(x + k)); });
  const double mean = sum_of(sum) / columns;
  for_each_group_of(row.columns, [&](int64_t k, auto group) COSMIC_LAMBDA {
    const F64 apart = group.inside(widen(group.load(x + k)) - F64::splat(mean));
    squares = squares + apart * apart;
  });
  const double rstd = 1 / __builtin_sqrt(sum_of(squares) / columns + row.eps);
  *row.mean = (Real)mean;
  *row.rstd = (Real)rstd;
  // what the mean loses by rounding is taken off by itself
  const V center = V::splat(*row.mean), rest = splat<V>(mean - *row.mean);
  const V scale = V::splat(*row.rstd);
  for_each_group_of(row.columns, [&](int64_t k, auto group) COSMIC_LAMBDA {
    V y = ((group.load(x + k) - center) - rest) * scale;
    if (weight) y = y * group.load(weight + k);
    if (bias) y = y + group.load(bias + k);
    group.store(y, row.out + k);
  });
}

template <class Real> void rms_norm_row(const NormRow<Real> &row) {
  using V = Lanes<Real>;
  const Real *const x = row.x, *const weight = row.weight;
  F64 squares = F64::splat(0);
  for_each_group_of(row.columns, [&](int64_t k, auto group) COSMIC_LAMBDA {
    const F64 wide = widen(group.load(x + k));
    squares = squares + wide * wide;
  });
  *row.rstd = (Real)(1 / __builtin_sqrt(sum_of(squares) / (double)row.columns + row.eps));
  const V scale = V::splat(*row.rstd);
  for_each_group_of(row.columns, [&](int64_t k, auto group) COSMIC_LAMBDA {
    V y = group.load(x + k) * scale;
    if (weight) y = y * group.load(weight + k);
    group.store(y, row.out + k);
  });
}

// With h = (x - mean) rstd and d = grad weight: dx = rstd (d - mean(d) - h mean(d h)); of RMSNorm
// mean(d) is left out.
template <class Real, bool kCentered> void norm_back(const NormBackRow<Real> &row) {
  using V = Lanes<Real>;
  const Real *const x = row.x, *const grad = row.grad, *const weight = row.weight;
  const V center = V::splat(kCentered ? *row.mean : Real(0)), scale = V::splat(*row.rstd);
  const auto columns = (double)row.columns;
  F64 plain = F64::splat(0), along = F64::splat(0);
  const auto height = [&](int64_t k, auto group) COSMIC_LAMBDA {
    const V value = group.load(x + k);
    return kCentered ? (value - center) * scale : value * scale;
  };
  const auto weighted = [&](int64_t k, auto group) COSMIC_LAMBDA {
    const V g = group.load(grad + k);
    return weight ? g * group.load(weight + k) : g;
  };
  for_each_group_of(row.columns, [&](int64_t k, auto group) COSMIC_LAMBDA {
    const F64 d = widen(weighted(k, group));
    if (kCentered) plain = plain + d;
    along = along + group.inside(d * widen(height(k, group)));
  });
  const V mean = splat<V>(kCentered ? sum_of(plain) / columns : 0);
  const V slope = splat<V>(sum_of(along) / columns);
  for_each_group_of(row.columns, [&](int64_t k, auto group) COSMIC_LAMBDA {
    V d = weighted(k, group);
    if (kCentered) d = d - mean;
    group.store((d - height(k, group) * slope) * scale, row.dx + k);
  });
}

template <class Real> void norm_back_row(const NormBackRow<Real> &row) {
  if (row.mean)
    norm_back<Real, true>(row);
  else
    norm_back<Real, false>(row);
}

} // namespace cosmic::COSMIC_TARGET
