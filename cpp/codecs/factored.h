// `factored`: the second moment of a matrix as one mean a row and one a column (Adafactor, Shazeer
// & Stern, arXiv 1804.04235):  v of (i, j) ~ row[i] column[j] / mean(row).
// It decodes to the means of the last step; the step adds its own share, so v <- beta2 v + (1 -
// beta2) g^2 of each element is what divides, and an element whose row was silent until now takes
// no larger step than in AdamW. Encoding is adding up the new v by rows and columns: one pass.
// Layout: plane 0, a float a row; plane 1, a float a column. A row is one walk along the
// parameter's innermost dimensions. Sums are in a fixed order: lanes along a row, rows down a
// column within a work item, then the items in order (plan/matrix.cpp).
#pragma once

#if defined(COSMIC_TARGET) // the arithmetic, on lanes

#include "codecs/context.h"

namespace cosmic::COSMIC_TARGET {

// The root of what v is multiplied with, which the row's number takes, and what takes it back for
// the units of state. No decay at all would leave nothing to take back.
struct RootDecay {
  float root, restored;

  COSMIC_METHOD explicit RootDecay(float decay)
      : root(__builtin_sqrtf(decay > 0x1p-48f ? decay : 0x1p-48f)), restored(1.0f / root) {}
};

// A block that lies in one row, which most do: no group needs to look where the row ends.
struct FactoredInRow : CodecTraits {
  static constexpr bool kPresent = true, kCompressed = true, kStaged = false, kUpdateUnits = false;
  static constexpr bool kMatrix = true; // kept by rows and columns
  static constexpr int kPlanes = 0;
  using Summary = Nothing;

  MatrixSums &matrix;
  const int64_t row, column; // of the block's first element
  const float *const column_root;
  float *const column_sums;
  const RootDecay decay;
  const F32 row_root;
  F32 lanes; // sums of the row so far
  F32 root, kept;

  COSMIC_METHOD static bool fits(const MatrixSums &matrix, int64_t block) {
    return block * kBlock % matrix.columns + kBlock <= matrix.columns;
  }

  COSMIC_METHOD FactoredInRow(const Planes & /*planes*/, int64_t block, const BlockContext &context,
                              int /*slot*/, float decay, float * /*waiting*/)
      : matrix(*context.matrix), row(block * kBlock / matrix.columns),
        column(block * kBlock - row * matrix.columns), column_root(matrix.column_root + column),
        column_sums(matrix.column_sums + column), decay(decay),
        row_root(F32::splat(matrix.row_root[row] * this->decay.root)),
        lanes(F32::load(matrix.row_lanes)) {}

  template <int i> COSMIC_METHOD void load(Group<i>, F32 &out) {
    root = row_root * F32::load(column_root + i * kLanes);
    out = kept = root * root;
  }
  template <int i> COSMIC_METHOD F32 unit(Group<i>, F32 scale, F32 eps) const {
    return root * (scale * F32::splat(decay.restored)) + eps;
  }
  template <int i> COSMIC_METHOD void store(Group<i>, const F32 &value) {
    const F32 v = summable(value, kept);
    float *sums = column_sums + i * kLanes;
    (F32::load(sums) + v).store(sums);
    lanes = lanes + v;
  }
  template <bool kTail>
  COSMIC_METHOD Nothing measure(const Planes &, int64_t, const BlockContext &, int64_t) {
    if (column + kBlock == matrix.columns) {
      matrix.row_sums[row - matrix.first_row] = reduce_add(lanes);
      lanes = F32::splat(0.0f);
    }
    lanes.store(matrix.row_lanes);
    return {};
  }

  // An element whose new v is 2^96 or more, or NaN, counts as if its gradient were zero: sums of
  // what is smaller stay finite.
  COSMIC_METHOD static F32 summable(F32 value, F32 kept) {
    return where_greater(F32::splat(0x1p96f), value, value, kept);
  }
};

struct Factored : CodecTraits {
  static constexpr bool kPresent = true, kCompressed = true, kStaged = false, kUpdateUnits = false;
  static constexpr bool kMatrix = true, kWalks = true; // kept by rows and columns
  static constexpr int kPlanes = 0;
  using Summary = Nothing;
  using InRow = FactoredInRow; // the planes are the plan's to read and write
  static constexpr int64_t bytes(int /*plane*/, int64_t /*numel*/) { return 0; }

  MatrixSums &matrix;
  // copies, because a store to the sums could otherwise change what is behind the reference
  const int64_t columns;
  const float *const row_root, *const column_root;
  float *const column_sums;
  int64_t row, column; // of the group's first element
  F32 lanes;           // sums of the row so far
  const RootDecay decay;
  F32 root, kept;

  COSMIC_METHOD Factored(const Planes & /*planes*/, int64_t block, const BlockContext &context,
                         int /*slot*/, float decay, float * /*waiting*/)
      : matrix(*context.matrix), columns(matrix.columns), row_root(matrix.row_root),
        column_root(matrix.column_root), column_sums(matrix.column_sums),
        row(block * kBlock / columns), column(block * kBlock - row * columns),
        lanes(F32::load(matrix.row_lanes)), decay(decay) {}

  template <int i> COSMIC_METHOD void load(Group<i>, F32 &out) {
    F32 rows = F32::splat(row_root[row] * decay.root);
    if (__builtin_expect(crosses(), 0))
      rows = where_greater(remaining(), lane_numbers<float>(), rows,
                           F32::splat(row_root[row + 1] * decay.root));
    root = rows * F32::load(column_root + column);
    out = kept = root * root;
  }

  template <int i> COSMIC_METHOD F32 unit(Group<i>, F32 scale, F32 eps) const {
    return root * (scale * F32::splat(decay.restored)) + eps;
  }

  template <int i> COSMIC_METHOD void store(Group<i>, const F32 &value) {
    const F32 v = FactoredInRow::summable(value, kept);
    float *sums = column_sums + column;
    (F32::load(sums) + v).store(sums);
    const F32 zero = F32::splat(0.0f);
    if (__builtin_expect(crosses(), 0)) {
      const F32 left = remaining();
      finish_row(lanes + where_greater(left, lane_numbers<float>(), v, zero));
      lanes = where_greater(left, lane_numbers<float>(), zero, v);
      column += kLanes - columns;
      return;
    }
    lanes = lanes + v;
    column += kLanes;
    if (column == columns) {
      finish_row(lanes);
      column = 0;
      lanes = zero;
    }
  }

  COSMIC_METHOD void skip() {
    column += kLanes;
    if (column < columns) return;
    column -= columns;
    ++row;
  }

  template <bool kTail>
  COSMIC_METHOD Nothing measure(const Planes &, int64_t, const BlockContext &, int64_t) {
    lanes.store(matrix.row_lanes);
    return {};
  }
  COSMIC_METHOD static void encode(const Planes &, int64_t, const BlockContext &, int,
                                   const float *, Nothing) {}

private:
  // Whether the group's lanes run over the row's end into the next row.
  COSMIC_METHOD bool crosses() const { return column + kLanes > columns; }
  COSMIC_METHOD F32 remaining() const { return F32::splat((float)(columns - column)); }
  COSMIC_METHOD void finish_row(F32 sums) {
    matrix.row_sums[row - matrix.first_row] = reduce_add(sums);
    ++row;
  }
};

} // namespace cosmic::COSMIC_TARGET

#else // what it says of itself

#include "parts/codec.h"

namespace cosmic::parts {

inline CodecPart factored() {
  CodecPart part;
  part.name = "factored";
  part.second = {planes::rows(), planes::columns()};
  part.by_rows = part.by_columns = true;
  return part;
}

} // namespace cosmic::parts

#endif
