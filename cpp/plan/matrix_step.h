// The step of a rule of whole matrices, such as `muon`: which matrix a tensor is, and what becomes
// of the average that the pass over blocks has left.
#pragma once

#include <cstdint>
#include <vector>

#include "core/strided.h"
#include "kernels/kernels.h"
#include "parts/rule.h"

namespace cosmic {

class MatrixStep {
public:
  // Of the tensor's first dimension and all others together, as it is walked. Throws Error that
  // names it if it is no matrix.
  MatrixStep(const TensorView &tensor, const WalkOrder &order, const std::string &name);

  // Floats of memory for a step on so many threads: the matrix, and beside it what orthogonalizing
  // one takes.
  int64_t scratch(const MatrixHow &how, int threads) const;

  // In place: the direction of the matrix in `memory`, or of each of its blocks, scaled.
  void orthogonalize(const Kernels &kernels, const MatrixHow &how, float *memory,
                     int threads) const;

  int64_t elements() const { return rows_ * columns_; }
  int64_t shorter() const { return rows_ < columns_ ? rows_ : columns_; }
  // So small that threads would wait for each other longer than they work.
  bool is_tiny() const { return elements() * shorter() <= int64_t{1} << 20; }

private:
  struct Piece {
    int64_t first_row, first_column, rows, columns;
  };

  double scale(const MatrixHow &how, const Piece &piece) const;
  double bound(const float *memory, const Piece &piece, int threads) const;
  std::vector<Piece> pieces(const MatrixHow &how) const;

  int64_t rows_ = 0, columns_ = 0; // of memory
  bool transposed_ = false;        // rows of memory are the tensor's columns
};

// How matrices share memory and threads: small ones are stepped side by side, a thread each, so
// that threads need not wait for each other within one; large ones one after another, by all
// threads.
class MatrixRoom {
public:
  MatrixRoom(const std::vector<const MatrixStep *> &matrices, const std::vector<MatrixHow> &hows,
             int threads);

  bool is_small(size_t matrix) const { return small_[matrix]; }
  int64_t of_small() const { return of_small_; } // floats for each of `side_by_side`
  int side_by_side() const { return side_by_side_; }
  int64_t floats() const; // in all

private:
  std::vector<bool> small_;
  int64_t of_small_ = 0, of_large_ = 0;
  int side_by_side_ = 0;
};

// Whether a parameter moves at the step that comes after so many. Its turn follows from its index
// alone, as others come and go: a multiple of the golden ratio, which spreads neighbours, and every
// second or third of them, evenly over the steps.
bool takes_turn(uint32_t index, int every, int64_t steps);

} // namespace cosmic
