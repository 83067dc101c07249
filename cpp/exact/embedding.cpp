#include <cstring>
#include <string>
#include <vector>

#include "core/error.h"
#include "exact/parallel.h"
#include "exact/rows.h"

namespace cosmic {

namespace {

void check_indices(const int64_t *indices, int64_t count, int64_t vocabulary) {
  for (int64_t n = 0; n < count; ++n)
    if (indices[n] < 0 || indices[n] >= vocabulary)
      throw Error(ErrorKind::index, "index " + std::to_string(indices[n]) + " at position " +
                                        std::to_string(n) + " is outside of a table of " +
                                        std::to_string(vocabulary) + " rows");
}

// The positions of every index one after another, each index's in ascending order: those of index v
// from starts[v] to starts[v + 1].
struct Positions {
  std::vector<int64_t> starts, at;

  Positions(const int64_t *indices, int64_t count, int64_t vocabulary)
      : starts(static_cast<size_t>(vocabulary) + 1), at(static_cast<size_t>(count)) {
    const auto slot = [&](int64_t n) -> int64_t & { return starts[static_cast<size_t>(n)]; };
    for (int64_t n = 0; n < count; ++n) ++slot(indices[n] + 1);
    for (int64_t v = 0; v < vocabulary; ++v) slot(v + 1) += slot(v);
    std::vector<int64_t> next(starts.begin(), starts.end() - 1);
    for (int64_t n = 0; n < count; ++n)
      at[static_cast<size_t>(next[static_cast<size_t>(indices[n])]++)] = n;
  }
};

} // namespace

template <class Real> void embedding_back(const ExactKernels &kernels, const int64_t *indices,
                                          int64_t count, const Real *grad, int64_t columns,
                                          int64_t padding, int64_t vocabulary, Real *out,
                                          int threads) {
  check_indices(indices, count, vocabulary);
  const Positions positions(indices, count, vocabulary);
  const auto sum = exact_kernels_of<Real>(kernels).sum_of_rows;
  const auto bytes = static_cast<size_t>(columns) * sizeof(Real);
  for_each_row(vocabulary, columns, threads, [&](int64_t v) {
    const int64_t first = positions.starts[static_cast<size_t>(v)];
    const int64_t found = positions.starts[static_cast<size_t>(v) + 1] - first;
    const int64_t *const rows = positions.at.data() + first;
    Real *const to = out + v * columns;
    if (found == 0 || v == padding)
      std::memset(to, 0, bytes);
    else if (found == 1)
      std::memcpy(to, grad + rows[0] * columns, bytes);
    else
      sum(grad, columns, rows, found, columns, to);
  });
}

#define COSMIC_FOR(Real)                                                                           \
  template void embedding_back(const ExactKernels &, const int64_t *, int64_t, const Real *,       \
                               int64_t, int64_t, int64_t, Real *, int);
COSMIC_FOR(float)
COSMIC_FOR(double)
#undef COSMIC_FOR

} // namespace cosmic
