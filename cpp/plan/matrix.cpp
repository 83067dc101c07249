#include "plan/matrix.h"

#include <algorithm>
#include <cmath>
#include <new>

namespace cosmic {

namespace {

// Rows behind an item's last one that the padding of a tensor's last block, and the row in which
// the item ends, can reach.
constexpr int64_t kSpareRows = kRowPadding + 2;
constexpr int64_t kRowsAnItem = 64, kLeastItems = 4, kMostItems = 32;

int64_t round_up(int64_t x, int64_t multiple) { return (x + multiple - 1) / multiple * multiple; }

// Lanes 8, 4, 2, 1 apart, as the kernels add.
float reduce(const float *lanes) {
  float sums[kLanes];
  std::copy(lanes, lanes + kLanes, sums);
  for (int apart = kLanes / 2; apart; apart /= 2)
    for (int k = 0; k < apart; ++k) sums[k] += sums[k + apart];
  return sums[0];
}

double mean(const float *values, int64_t count) {
  double sum = 0;
  for (int64_t k = 0; k < count; ++k) sum += static_cast<double>(values[k]);
  return sum / static_cast<double>(count);
}

} // namespace

void AlignedFloats::resize(int64_t count) {
  const auto bytes = static_cast<size_t>(count) * sizeof(float);
  memory_.reset(static_cast<float *>(::operator new(bytes, std::align_val_t{64})));
}

MatrixMoment::MatrixMoment(MatrixShape shape, float *rows, float *columns, const ShardOf &shard)
    : shape_(shape), shard_(shard), rows_(rows), columns_(columns) {
  const int64_t blocks = (shape.rows * shape.columns + kBlock - 1) / kBlock;
  const int64_t wanted = std::clamp(shape.rows / kRowsAnItem, kLeastItems, kMostItems);
  item_blocks_ = std::max((blocks + wanted - 1) / wanted, kChunkBlocks);
  items_ = (blocks + item_blocks_ - 1) / item_blocks_;
  padded_columns_ = round_up(shape.columns + kColumnPadding, kLanes);
  row_root_.resize(shape.rows + kRowPadding);
  column_root_.resize(shape.columns + kColumnPadding);
  row_sums_.resize(shape.rows + (items_ + 1) * kSpareRows);
  column_sums_.resize(items_ * padded_columns_);
  totals_.resize(static_cast<size_t>(shape.rows + shape.columns));
}

int64_t MatrixMoment::first_element(int64_t item) const {
  return std::min(item * item_blocks_ * kBlock, shape_.rows * shape_.columns);
}
float *MatrixMoment::row_sums(int64_t item) const {
  return row_sums_.data() + first_row(item) + item * kSpareRows;
}
float *MatrixMoment::column_sums(int64_t item) const {
  return column_sums_.data() + item * padded_columns_;
}

void MatrixMoment::prepare() {
  ahead_.clear(); // of a step that was refused
  find_roots(rows_, columns_);
}

void MatrixMoment::find_roots(const float *rows, const float *columns) {
  const auto roots = [](const float *means, int64_t count, double scale, float *out) {
    if (!means) return std::fill(out, out + count, 1.0f);
    for (int64_t k = 0; k < count; ++k)
      out[k] = std::sqrt(static_cast<float>(static_cast<double>(means[k]) * scale));
  };
  // Of the rows: with both vectors, their product has the mean twice. Of a shard it is the mean of
  // the vector that may be the whole matrix's.
  double scale = 1.0;
  if (rows && columns) {
    const double all =
        shard_ && shard_.cut == Cut::rows ? mean(columns, shape_.columns) : mean(rows, shape_.rows);
    scale = all > 0 ? 1.0 / all : 0.0;
  }
  float *row = row_root_.data(), *column = column_root_.data();
  roots(rows, shape_.rows, scale, row);
  std::fill(row + shape_.rows, row + shape_.rows + kRowPadding, 0.0f);
  roots(columns, shape_.columns, 1.0, column);
  std::copy(column, column + kColumnPadding, column + shape_.columns);
}

MatrixSums MatrixMoment::open(int64_t item) {
  MatrixSums sums;
  sums.columns = shape_.columns;
  sums.first_row = first_row(item);
  sums.row_root = row_root_.data();
  sums.column_root = column_root_.data();
  sums.row_sums = row_sums(item);
  sums.column_sums = column_sums(item);
  std::fill(sums.row_sums, row_sums(item + 1), 0.0f);
  std::fill(sums.column_sums, sums.column_sums + padded_columns_, 0.0f);
  return sums;
}

void MatrixMoment::close(int64_t item, const MatrixSums &sums) {
  const int64_t blocks = (shape_.rows * shape_.columns + kBlock - 1) / kBlock;
  const int64_t last = std::min((item + 1) * item_blocks_, blocks) * kBlock;
  sums.row_sums[last / shape_.columns - sums.first_row] = reduce(sums.row_lanes);
}

void MatrixMoment::add_up() {
  if (!ahead_.empty()) return; // the state's next means are there already
  std::fill(totals_.begin(), totals_.end(), 0.0);
  double *const rows = totals_.data(), *const columns = rows + shape_.rows;
  for (int64_t item = 0; rows_ && item < items_; ++item) {
    const int64_t first = first_row(item), end = std::min(first_row(item + 1) + 1, shape_.rows);
    const float *of_item = row_sums(item);
    for (int64_t r = first; r < end; ++r) rows[r] += static_cast<double>(of_item[r - first]);
  }
  for (int64_t item = 0; columns_ && item < items_; ++item) {
    const float *of_item = column_sums(item);
    for (int64_t c = 0; c < shape_.columns; ++c) columns[c] += static_cast<double>(of_item[c]);
    for (int64_t c = 0; c < kColumnPadding; ++c) // groups that ran over a row's end
      columns[c] += static_cast<double>(of_item[shape_.columns + c]);
  }
}

MatrixMoment::Totals MatrixMoment::shared() {
  if (ahead_.empty() && shares_rows()) return {totals_.data(), shape_.rows};
  if (ahead_.empty() && shares_columns()) return {totals_.data() + shape_.rows, shape_.columns};
  return {nullptr, 0};
}

void MatrixMoment::look_ahead() {
  ahead_.resize(static_cast<size_t>(shape_.rows + shape_.columns));
  float *const rows = rows_ ? ahead_.data() : nullptr;
  float *const columns = columns_ ? ahead_.data() + shape_.rows : nullptr;
  find_means(rows, columns);
  find_roots(rows, columns);
}

void MatrixMoment::finish() {
  if (ahead_.empty()) return find_means(rows_, columns_);
  if (rows_) std::copy_n(ahead_.data(), shape_.rows, rows_);
  if (columns_) std::copy_n(ahead_.data() + shape_.rows, shape_.columns, columns_);
  ahead_.clear();
}

// Of an empty shard only what others have a part of has a mean.
void MatrixMoment::find_means(float *rows, float *columns) const {
  const auto take = [](const double *totals, int64_t count, int64_t of_each, float *means) {
    if (!means || !of_each) return;
    for (int64_t k = 0; k < count; ++k)
      means[k] = static_cast<float>(totals[k] / static_cast<double>(of_each));
  };
  const MatrixShape &whole = shard_.whole_matrix;
  take(totals_.data(), shape_.rows, shares_rows() ? whole.columns : shape_.columns, rows);
  take(totals_.data() + shape_.rows, shape_.columns, shares_columns() ? whole.rows : shape_.rows,
       columns);
}

std::shared_ptr<MatrixMoment> matrix_moment(const CodecPart *codec, MatrixShape shape,
                                            const Planes &planes, const ShardOf &shard) {
  if (!codec || !codec->of_matrix()) return nullptr;
  const auto at = [&](size_t k) { return static_cast<float *>(planes.data[k]); };
  return std::make_shared<MatrixMoment>(shape, codec->by_rows ? at(0) : nullptr,
                                        codec->by_columns ? at(codec->by_rows ? 1 : 0) : nullptr,
                                        shard);
}

} // namespace cosmic
