// Sums in double over elements, columns and chosen rows. Those of a row go along 16 lanes, those of
// a column from the first row to the last.
#pragma once

#include "exact/exact_kernels.h"
#include "exact/numbers.h"

namespace cosmic::COSMIC_TARGET {

template <class Real> double sum_run(const Real *x, int64_t count) {
  F64 sum = F64::splat(0);
  for_each_group_of(count, [&](int64_t k, auto group)
                               COSMIC_LAMBDA { sum = sum + widen(group.load(x + k)); });
  return sum_of(sum);
}

// Columns that are worked on together: their sums stay in L1.
constexpr int64_t kColumnsAtOnce = 512;

// Rows that are added to a sum before it goes back to memory.
constexpr int kRowsAtOnce = 4;

template <class Real, bool kPlain, bool kNormalized, bool kCentered, int kRows>
COSMIC_INLINE void add_rows(const ColumnRun<Real> &run, int64_t row, int64_t first, int64_t count) {
  using V = Lanes<Real>;
  for_each_group_of(count, [&](int64_t k, auto group) COSMIC_LAMBDA {
    double *const plain = run.plain + first + k, *const normalized = run.normalized + first + k;
    F64 sum = kPlain ? group.load(plain) : F64::splat(0);
    F64 sum_normalized = kNormalized ? group.load(normalized) : F64::splat(0);
    for (int64_t r = row; r < row + kRows; ++r) {
      const int64_t at = r * run.columns + first + k;
      const F64 grad = widen(group.load(run.grad + at));
      if constexpr (kPlain) sum = sum + grad;
      if constexpr (kNormalized) {
        V x = group.load(run.x + at);
        if constexpr (kCentered) x = x - V::splat(run.mean[r]);
        sum_normalized = sum_normalized + grad * widen(x * V::splat(run.rstd[r]));
      }
    }
    if constexpr (kPlain) group.store(sum, plain);
    if constexpr (kNormalized) group.store(sum_normalized, normalized);
  });
}

template <class Real, bool kPlain, bool kNormalized, bool kCentered>
void add_columns(const ColumnRun<Real> &run) {
  for (int64_t first = 0; first < run.columns; first += kColumnsAtOnce) {
    const int64_t left = run.columns - first, count = left < kColumnsAtOnce ? left : kColumnsAtOnce;
    for (int64_t k = first; k < first + count; ++k) {
      if constexpr (kPlain) run.plain[k] = 0;
      if constexpr (kNormalized) run.normalized[k] = 0;
    }
    int64_t row = 0;
    for (; row + kRowsAtOnce <= run.rows; row += kRowsAtOnce)
      add_rows<Real, kPlain, kNormalized, kCentered, kRowsAtOnce>(run, row, first, count);
    for (; row < run.rows; ++row)
      add_rows<Real, kPlain, kNormalized, kCentered, 1>(run, row, first, count);
  }
}

template <class Real> void column_sums_run(const ColumnRun<Real> &run) {
  if (!run.normalized)
    add_columns<Real, true, false, false>(run);
  else if (!run.mean)
    add_columns<Real, false, true, false>(run);
  else
    add_columns<Real, true, true, true>(run);
}

template <class Real>
void join_sums(const double *partial, int64_t count, int64_t stride, int64_t columns, Real *out) {
  for_each_group_of(columns, [&](int64_t k, auto group) COSMIC_LAMBDA {
    F64 sum = F64::splat(0);
    for (int64_t n = 0; n < count; ++n) sum = sum + group.load(partial + n * stride + k);
    group.store(narrow_to<Real>(sum), out + k);
  });
}

template <class Real> void sum_of_rows(const Real *matrix, int64_t stride, const int64_t *rows,
                                       int64_t count, int64_t columns, Real *out) {
  for_each_group_of(columns, [&](int64_t k, auto group) COSMIC_LAMBDA {
    F64 sum = F64::splat(0);
    for (int64_t n = 0; n < count; ++n)
      sum = sum + widen(group.load(matrix + rows[n] * stride + k));
    group.store(narrow_to<Real>(sum), out + k);
  });
}

} // namespace cosmic::COSMIC_TARGET
