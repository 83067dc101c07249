#include "plan/participation.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "isa/dispatch.h"
#include "plan/stage.h"

namespace cosmic {

namespace {

constexpr int64_t kRun = 4 * kBlock;

constexpr float kLargest = 1e30F; // sums of as many as fit into memory stay finite

double effective_share(const std::vector<float> &values) {
  double sum = 0, squares = 0;
  for (const float value : values) {
    const auto x = static_cast<double>(value);
    sum += x;
    squares += x * x;
  }
  return squares > 0 ? sum * sum / (static_cast<double>(values.size()) * squares) : 0.0;
}

// Adds |g| of a stretch of a row to its columns and to sixteen sums of the row: loops that the
// compiler turns into vectors without changing the order of a sum.
void add(const float *values, int64_t count, float *columns, float *row) {
  int64_t c = 0;
  for (; c + kLanes <= count; c += kLanes)
    for (int k = 0; k < kLanes; ++k) {
      const float size = std::fabs(values[c + k]), x = size < kLargest ? size : 0.0F;
      columns[c + k] += x;
      row[k] += x;
    }
  for (; c < count; ++c) {
    const float size = std::fabs(values[c]), x = size < kLargest ? size : 0.0F;
    columns[c] += x;
    row[c % kLanes] += x;
  }
}

} // namespace

Participation participation_of(const Operand &gradient, MatrixShape shape) {
  std::vector<float> rows, columns(static_cast<size_t>(shape.columns));
  Stage<float, kRun> stage(gradient, chosen_kernels());
  for (int64_t row = 0; row < shape.rows; ++row) {
    float sums[kLanes] = {};
    for (int64_t column = 0; column < shape.columns; column += kRun) {
      const int64_t count = std::min(kRun, shape.columns - column);
      add(stage.load(row * shape.columns + column, count), count, columns.data() + column, sums);
    }
    rows.push_back(std::accumulate(sums, sums + kLanes, 0.0F));
  }
  return {effective_share(rows), effective_share(columns)};
}

} // namespace cosmic
