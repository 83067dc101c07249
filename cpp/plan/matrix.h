// A second moment kept by rows and columns, from step to step: what the kernels read of it, the
// sums of every work item, and their reduction in a fixed order.
#pragma once

#include <cstdint>
#include <memory>
#include <new>
#include <vector>

#include "kernels/matrix_sums.h"
#include "plan/place.h"

namespace cosmic {

// Floats on a cache line of their own: kernels add to them 16 at a time.
class AlignedFloats {
public:
  void resize(int64_t count);
  float *data() const { return memory_.get(); }

private:
  struct Free {
    void operator()(float *memory) const { ::operator delete(memory, std::align_val_t{64}); }
  };
  std::unique_ptr<float, Free> memory_;
};

class MatrixMoment {
public:
  // `rows` and `columns` are the state's means; the one that is null is held at one. Of a shard
  // each process has the means of what lies in it.
  MatrixMoment(MatrixShape shape, float *rows, float *columns, const ShardOf &shard);

  // Whether the means that others have a part of are to be those of the whole matrix: of columns
  // where its rows are cut, of rows where its columns are. Before `prepare`.
  void share(bool shares) { shares_ = shares; }

  // Blocks of a work item: a share of at least kChunkBlocks that keeps the items' sums a small
  // fraction of the matrix, whatever the number of threads.
  int64_t item_blocks() const { return item_blocks_; }

  // Roots of the means, for the kernels. Before the step's first item.
  void prepare();

  // What the kernels need of item `item`, its sums set to zero.
  MatrixSums open(int64_t item);
  // After the item's last block.
  void close(int64_t item, const MatrixSums &sums);

  // Adds the items up, in order. After the last item of the step, or of a pass before it.
  void add_up();
  // Of what that has added up, what is to be summed over all shards; of a step that was looked
  // ahead to, nothing any more.
  struct Totals {
    double *numbers;
    int64_t count;
  };
  Totals shared();

  // After a pass over all items before the step: the kernels read the means that its sums make from
  // now on, and the state has them after the step, whatever that adds up.
  void look_ahead();

  // What has been added up becomes the state.
  void finish();

private:
  int64_t first_element(int64_t item) const;
  int64_t first_row(int64_t item) const { return first_element(item) / shape_.columns; }
  float *row_sums(int64_t item) const;
  float *column_sums(int64_t item) const;
  void find_roots(const float *rows, const float *columns);
  void find_means(float *rows, float *columns) const;
  bool shares_rows() const { return shares_ && rows_ && shard_.cut == Cut::columns; }
  bool shares_columns() const { return shares_ && columns_ && shard_.cut == Cut::rows; }

  MatrixShape shape_;
  ShardOf shard_;
  bool shares_ = false;
  float *rows_, *columns_;
  int64_t items_, item_blocks_, padded_columns_;
  AlignedFloats row_root_, column_root_, row_sums_, column_sums_;
  std::vector<double> totals_; // of rows, then of columns
  std::vector<float> ahead_;   // means of rows, then of columns; empty but after look_ahead
};

// Of a second moment whose codec keeps rows, columns or both, in the order of its planes; null of
// any other.
std::shared_ptr<MatrixMoment> matrix_moment(const CodecPart *codec, MatrixShape shape,
                                            const Planes &planes, const ShardOf &shard);

} // namespace cosmic
