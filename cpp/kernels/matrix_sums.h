// A second moment that is kept as one number a row and one a column: what a work item reads of it
// and what it adds up for the next step.
#pragma once

#include <cstdint>

#include "core/types.h"

namespace cosmic {

// Elements past the matrix that the padding of a tensor's last block may reach.
constexpr int64_t kRowPadding = 8;         // a block of 128 covers at most 8 rows of 16
constexpr int64_t kColumnPadding = kLanes; // a group of lanes may run over a row's end

struct MatrixSums {
  int64_t columns = 0;   // at least kLanes
  int64_t first_row = 0; // of the item
  // v of element (i, j) is (row_root[i] column_root[j])^2
  const float *row_root = nullptr;    // rows + kRowPadding, zeros behind the matrix
  const float *column_root = nullptr; // columns + kColumnPadding: the first ones again
  // sums of the new v over the item: [row - first_row], and columns + kColumnPadding
  float *row_sums = nullptr, *column_sums = nullptr;
  alignas(64) float row_lanes[kLanes] = {}; // of the row that the item is in
};

} // namespace cosmic
