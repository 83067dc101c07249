// Where a row's elements lie in a larger tensor of which it is a shard.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/types.h"
#include "plan/layout.h"

namespace cosmic {

// By blocks, whose numbers in the whole tensor random bits go by: the bits that one process would
// draw for the same elements. A tensor that is no shard has the place of its own blocks.
struct BlockPlace {
  int64_t first = 0; // the number of the row's first block
  // Blocks of a row of the shard, and of the whole: of shards that are cut along columns, whose
  // rows hold whole blocks. Equal, and not looked at, in all others.
  int64_t local_per_row = 0, global_per_row = 0;
  // Elements of the first block that lie before the shard, fewer than kBlock. Then the shard's
  // blocks are those of the whole, and its own first one is partial.
  int64_t lead = 0;

  bool in_rows() const { return local_per_row != global_per_row; }
  int64_t of(int64_t block) const {
    if (!in_rows()) return first + block;
    return first + block / local_per_row * global_per_row + block % local_per_row;
  }
  int64_t blocks(int64_t numel) const {
    return numel > 0 ? (lead + numel + kBlock - 1) / kBlock : 0;
  }
};

// Consecutive elements of a row, all in whole blocks or in one partial one.
struct Piece {
  int64_t block;   // of the row
  int64_t element; // of the row, the first one
  int64_t count;
};

// What of a matrix other shards have.
enum class Cut { rows, columns, both };

// Of which tensor a row is a shard: the same in every process, but for `matrix`.
struct ShardOf {
  int64_t numel = 0;                // of the whole tensor; 0: the row is no shard
  MatrixShape matrix, whole_matrix; // of a second moment by rows and columns
  Cut cut = Cut::rows;
  bool has_rows = false; // the tensor has several, though this shard may have one, or none

  explicit operator bool() const { return numel > 0; }
};

} // namespace cosmic
