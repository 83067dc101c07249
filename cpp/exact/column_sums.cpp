// Sums over rows, in blocks whose number depends on the rows alone: each block by one thread, then
// all blocks in their order.
#include "exact/block_sums.h"
#include "exact/rows.h"

namespace cosmic {

template <class Real> void column_sums(const ExactKernels &kernels, const Real *x, int64_t rows,
                                       int64_t columns, Real *out, int threads) {
  const BlockSums sums(rows, columns, 1);
  const auto &table = exact_kernels_of<Real>(kernels);
  sums.for_each(threads, [&](int64_t first, int64_t count, double *to) {
    table.column_sums(
        {x + first * columns, nullptr, nullptr, nullptr, count, columns, to, nullptr});
  });
  sums.join(table, 0, out, threads);
}

template <class Real>
double sum_of_elements(const ExactKernels &kernels, const Real *x, int64_t count, int threads) {
  const int64_t pieces = (count + kElementsOfPiece - 1) / kElementsOfPiece;
  std::vector<double> partial(static_cast<size_t>(pieces));
  for_each_piece(count, kElementsOfPiece, threads, [&](int64_t first, int64_t last) {
    partial[static_cast<size_t>(first / kElementsOfPiece)] =
        exact_kernels_of<Real>(kernels).sum(x + first, last - first);
  });
  const DefaultFloatEnvironment environment;
  return kernels.f64.sum(partial.data(), pieces);
}

#define COSMIC_FOR(Real)                                                                           \
  template void column_sums(const ExactKernels &, const Real *, int64_t, int64_t, Real *, int);    \
  template double sum_of_elements(const ExactKernels &, const Real *, int64_t, int);
COSMIC_FOR(float)
COSMIC_FOR(double)
#undef COSMIC_FOR

} // namespace cosmic
