// Sums over the rows of a matrix, a block of rows at a time.
#pragma once

#include <memory>
#include <vector>

#include "exact/exact_kernels.h"
#include "exact/parallel.h"

namespace cosmic {

// Sums of a kind and a block are a row of doubles, in which every thread writes whole lines.
class BlockSums {
public:
  BlockSums(int64_t rows, int64_t columns, int kinds)
      : rows_(rows), columns_(columns), kinds_(kinds),
        block_(std::max(kLeastRows, (rows + kMostBlocks - 1) / kMostBlocks)),
        blocks_((rows + block_ - 1) / block_), stride_((columns + kLine - 1) / kLine * kLine),
        sums_(new double[static_cast<size_t>(blocks_ * kinds * stride_)]) {}

  // add(first row, rows, sums of the first kind); those of the next lie stride() further on.
  template <class Add> void for_each(int threads, const Add &add) const {
    for_each_piece(rows_, block_, threads, [&](int64_t first, int64_t last) {
      add(first, last - first, sums_.get() + first / block_ * kinds_ * stride_);
    });
  }
  int64_t stride() const { return stride_; }

  template <class Real>
  void join(const ExactKernelsOf<Real> &kernels, int kind, Real *out, int threads) const {
    const int64_t apart = kinds_ * stride_;
    for_each_piece(columns_, kColumnsOfPiece, threads, [&](int64_t first, int64_t last) {
      kernels.join_sums(sums_.get() + kind * stride_ + first, blocks_, apart, last - first,
                        out + first);
    });
  }

private:
  static constexpr int64_t kLeastRows = 64, kMostBlocks = 256, kLine = 8, kColumnsOfPiece = 2048;
  int64_t rows_, columns_;
  int kinds_;
  int64_t block_, blocks_, stride_;
  std::unique_ptr<double[]> sums_;
};

} // namespace cosmic
