#include "plan/density.h"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "isa/dispatch.h"
#include "plan/stage.h"

namespace cosmic {

namespace {

constexpr int64_t kRun = 4 * kBlock;

// Marks the columns of a stretch of a row that are not zero, and counts them.
int64_t mark(const float *values, int64_t count, uint8_t *columns) {
  int64_t found = 0;
  for (int64_t c = 0; c < count; ++c) {
    const bool any = values[c] != 0;
    columns[c] |= static_cast<uint8_t>(any);
    found += any;
  }
  return found;
}

} // namespace

double density_of(const Operand &gradient, MatrixShape shape) {
  std::vector<uint8_t> columns(static_cast<size_t>(shape.columns));
  Stage<float, kRun> stage(gradient, chosen_kernels());
  int64_t rows = 0, total = 0;
  for (int64_t row = 0; row < shape.rows; ++row) {
    int64_t found = 0;
    for (int64_t column = 0; column < shape.columns; column += kRun) {
      const int64_t count = std::min(kRun, shape.columns - column);
      found +=
          mark(stage.load(row * shape.columns + column, count), count, columns.data() + column);
    }
    rows += found > 0;
    total += found;
  }
  const auto used = std::count(columns.begin(), columns.end(), uint8_t{1});
  return total > 0 ? static_cast<double>(total) / static_cast<double>(rows * used) : 1.0;
}

} // namespace cosmic
