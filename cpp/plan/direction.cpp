#include "plan/direction.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "isa/dispatch.h"
#include "plan/stage.h"

namespace cosmic {

namespace {

constexpr int64_t kRun = 4 * kBlock;

// The squared coefficient of variation.
double variation(const std::vector<double> &sums) {
  const auto n = static_cast<double>(sums.size());
  double first = 0, second = 0;
  for (const double x : sums) {
    first += x / n;
    second += x * x / n;
  }
  return first > 0 ? second / (first * first) - 1.0 : 0.0;
}

} // namespace

Variation variation_of(const Operand &matrix, MatrixShape shape) {
  std::vector<double> rows(static_cast<size_t>(shape.rows));
  std::vector<double> columns(static_cast<size_t>(shape.columns));
  Stage<float, kRun> stage(matrix, chosen_kernels());
  const int64_t numel = shape.rows * shape.columns;
  for (int64_t first = 0; first < numel; first += kRun) {
    const int64_t count = std::min(kRun, numel - first);
    const float *values = stage.load(first, count);
    for (int64_t k = 0; k < count; ++k) {
      const auto x = static_cast<double>(values[k]);
      if (!std::isfinite(x)) continue;
      rows[static_cast<size_t>((first + k) / shape.columns)] += x * x;
      columns[static_cast<size_t>((first + k) % shape.columns)] += x * x;
    }
  }
  return {variation(rows), variation(columns)};
}

bool keeps_columns(const Operand &gradient, MatrixShape shape) {
  const Variation seen = variation_of(gradient, shape);
  return seen.of_columns > seen.of_rows;
}

} // namespace cosmic
