#include "exact/elements.h"

#include <cmath>

#include "core/error.h"
#include "exact/parallel.h"

namespace cosmic {

template <class Real> void map_elements(const ExactKernels &kernels, MapAt op, const Real *x,
                                        int64_t count, Real *out, int threads) {
  const auto run = exact_kernels_of<Real>(kernels).map[static_cast<int>(op)];
  for_each_piece(count, kElementsOfPiece, threads,
                 [=](int64_t first, int64_t last) { run(x + first, last - first, out + first); });
}

template <class Real> void map_elements_back(const ExactKernels &kernels, MapAt op, const Real *x,
                                             const Real *grad, int64_t count, Real *out,
                                             int threads) {
  const auto run = exact_kernels_of<Real>(kernels).map_back[static_cast<int>(op)];
  for_each_piece(count, kElementsOfPiece, threads, [=](int64_t first, int64_t last) {
    run(x + first, grad + first, last - first, out + first);
  });
}

template <class Real> void drop_elements(const ExactKernels &kernels, const Real *x, int64_t count,
                                         double p, uint64_t key, Real *out, int threads) {
  const auto &table = exact_kernels_of<Real>(kernels);
  const auto below = static_cast<int64_t>(std::llround(p * 0x1p32)) + INT32_MIN;
  const auto threshold = static_cast<int32_t>(std::min<int64_t>(below, INT32_MAX));
  const double scale = 1 / (1 - p);
  for_each_piece(count, kElementsOfPiece, threads, [&](int64_t first, int64_t last) {
    table.dropout({key, first, last - first}, threshold, scale, x + first, out + first);
  });
}

template <class Real> void fill_uniform(const ExactKernels &kernels, double low, double high,
                                        uint64_t key, int64_t count, Real *out, int threads) {
  const auto &table = exact_kernels_of<Real>(kernels);
  for_each_piece(count, kElementsOfPiece, threads, [&](int64_t first, int64_t last) {
    table.uniform({key, first, last - first}, low, high, out + first);
  });
}

template <class Real> void fill_normal(const ExactKernels &kernels, double mean, double std,
                                       uint64_t key, int64_t count, Real *out, int threads) {
  const auto &table = exact_kernels_of<Real>(kernels);
  for_each_piece(count, kElementsOfPiece, threads, [&](int64_t first, int64_t last) {
    table.normal({key, first, last - first}, mean, std, out + first);
  });
}

void fill_inverse_frequencies(const ExactKernels &kernels, double base, int64_t count,
                              double *out) {
  const DefaultFloatEnvironment environment;
  kernels.inverse_frequencies(base, count, out);
}

namespace {

void check_angles(const int64_t *positions, int64_t count, const double *frequencies,
                  int64_t half) {
  constexpr double kMost = 0x1p24;
  double furthest = 0, fastest = 0;
  for (int64_t n = 0; n < count; ++n)
    furthest = std::max(furthest, std::abs(static_cast<double>(positions[n])));
  for (int64_t k = 0; k < half; ++k) {
    if (!std::isfinite(frequencies[k]))
      throw Error(ErrorKind::value, "inverse_frequencies must be finite");
    fastest = std::max(fastest, std::abs(frequencies[k]));
  }
  if (furthest * fastest > kMost)
    throw Error(ErrorKind::value, "positions times inverse_frequencies must lie within 2^24: sine "
                                  "and cosine are not exact beyond");
}

} // namespace

template <class Real> void fill_rotary(const ExactKernels &kernels, const int64_t *positions,
                                       int64_t count, const double *frequencies, int64_t half,
                                       double scaling, Real *cos, Real *sin, int threads) {
  check_angles(positions, count, frequencies, half);
  const auto &table = exact_kernels_of<Real>(kernels);
  for_each_row(count, 2 * half, threads, [&](int64_t row) {
    const int64_t at = row * 2 * half;
    table.rotary(static_cast<double>(positions[row]), frequencies, half, scaling, cos + at,
                 sin + at);
  });
}

#define COSMIC_FOR(Real)                                                                           \
  template void map_elements(const ExactKernels &, MapAt, const Real *, int64_t, Real *, int);     \
  template void map_elements_back(const ExactKernels &, MapAt, const Real *, const Real *,         \
                                  int64_t, Real *, int);                                           \
  template void drop_elements(const ExactKernels &, const Real *, int64_t, double, uint64_t,       \
                              Real *, int);                                                        \
  template void fill_uniform(const ExactKernels &, double, double, uint64_t, int64_t, Real *,      \
                             int);                                                                 \
  template void fill_normal(const ExactKernels &, double, double, uint64_t, int64_t, Real *, int); \
  template void fill_rotary(const ExactKernels &, const int64_t *, int64_t, const double *,        \
                            int64_t, double, Real *, Real *, int);
COSMIC_FOR(float)
COSMIC_FOR(double)
#undef COSMIC_FOR

} // namespace cosmic
