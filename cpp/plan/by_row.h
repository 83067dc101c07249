// Tensors whose gates look at each row: the update waits in memory until its rows are known.
#pragma once

#include <vector>

#include "plan/gating.h"

namespace cosmic {

// What the rows of a tensor are gated by. `update` has the update of every element, times `unit`,
// in the order in which the tensor is walked.
template <class Real> class RowGating {
public:
  RowGating(const Gating &gates, const Row &row, const Kernels &kernels, Real *update, double unit)
      : gates_(gates), row_(row), kernels_(kernels), update_(update), unit_(unit) {}

  // Multiplies the update of each row by its factor. Returns what that makes of the root mean
  // square of the whole.
  double scale(int threads);

private:
  void add_squares(int threads);
  void add_squares_of(int64_t first, int64_t last);
  void scale_elements(int64_t first, int64_t last, const std::vector<double> &factors);

  const Gating &gates_;
  const Row &row_;
  const Kernels &kernels_;
  Real *const update_;
  const double unit_;
  std::vector<double> params_, updates_; // squares by row
};

} // namespace cosmic
