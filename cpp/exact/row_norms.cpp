#include "exact/block_sums.h"
#include "exact/rows.h"

namespace cosmic {

template <class Real>
void normalize(const ExactKernels &kernels, const Norm<Real> &norm, int threads) {
  const auto &table = exact_kernels_of<Real>(kernels);
  const auto run = norm.mean ? table.layer_norm : table.rms_norm;
  for_each_row(norm.rows, norm.columns, threads, [&](int64_t row) {
    const int64_t at = row * norm.columns;
    run({norm.x + at, norm.columns, norm.weight, norm.bias, norm.eps, norm.out + at,
         norm.mean ? norm.mean + row : nullptr, norm.rstd + row});
  });
}

namespace {

template <class Real> void rows_back(const ExactKernelsOf<Real> &table, const NormBack<Real> &norm,
                                     int64_t first, int64_t count) {
  for (int64_t row = first; row < first + count; ++row) {
    const int64_t at = row * norm.columns;
    table.norm_back({norm.x + at, norm.grad + at, norm.columns, norm.weight,
                     norm.mean ? norm.mean + row : nullptr, norm.rstd + row, norm.dx + at});
  }
}

} // namespace

// A block's rows are still near when their columns are summed.
template <class Real>
void normalize_back(const ExactKernels &kernels, const NormBack<Real> &norm, int threads) {
  const auto &table = exact_kernels_of<Real>(kernels);
  const int64_t columns = norm.columns;
  const BlockSums sums(norm.rows, columns, 2);
  sums.for_each(threads, [&](int64_t first, int64_t count, double *to) {
    if (norm.dx) rows_back(table, norm, first, count);
    double *const plain = norm.mean ? to : nullptr, *const normalized = to + sums.stride();
    if (norm.dweight || norm.dbias)
      table.column_sums({norm.grad + first * columns, norm.x + first * columns,
                         norm.mean ? norm.mean + first : nullptr, norm.rstd + first, count, columns,
                         plain, normalized});
  });
  if (norm.dbias) sums.join(table, 0, norm.dbias, threads);
  if (norm.dweight) sums.join(table, 1, norm.dweight, threads);
}

#define COSMIC_FOR(Real)                                                                           \
  template void normalize(const ExactKernels &, const Norm<Real> &, int);                          \
  template void normalize_back(const ExactKernels &, const NormBack<Real> &, int);
COSMIC_FOR(float)
COSMIC_FOR(double)
#undef COSMIC_FOR

} // namespace cosmic
