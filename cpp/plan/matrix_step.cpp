#include "plan/matrix_step.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "core/error.h"
#include "matmul/orthogonalize.h"

namespace cosmic {

namespace {

// Adam's updates have this root mean square (Liu et al., arXiv 2502.16982).
constexpr double kRms = 0.2;
// Up to here waking a second thread costs more than it brings.
constexpr int64_t kElementsAlone = 1 << 16;

// Floats that small matrices may take, one a thread, with what orthogonalizing them takes: as many
// as a core's own cache holds, or together 64 MB.
constexpr int64_t kSmall = int64_t{1} << 20, kTogether = int64_t{1} << 24;

int64_t padded(int64_t elements) { return (elements + kBlock - 1) / kBlock * kBlock; }

} // namespace

MatrixStep::MatrixStep(const TensorView &tensor, const WalkOrder &order, const std::string &name) {
  const int64_t numel = tensor.numel();
  if (tensor.ndim < 2 || numel == 0)
    throw Error(ErrorKind::value, name + " has " + std::to_string(tensor.ndim) +
                                      " dimensions; its rung steps matrices: two dimensions or "
                                      "more");
  const int64_t first = tensor.sizes[0], others = numel / first;
  if (first > 1 && others > 1 && order.dims[0] != 0 && order.dims[order.ndim - 1] != 0)
    throw Error(ErrorKind::value, name + " has its first dimension amid the others in memory; its "
                                         "rung steps matrices: make it contiguous");
  transposed_ = first > 1 && others > 1 && order.dims[0] != 0;
  rows_ = transposed_ ? others : first;
  columns_ = transposed_ ? first : others;
}

std::vector<MatrixStep::Piece> MatrixStep::pieces(const MatrixHow &how) const {
  const bool wide = rows_ <= columns_;
  const int64_t side = shorter();
  const int64_t count = std::min<int64_t>(how.blocks, side);
  std::vector<Piece> out;
  for (int64_t k = 0; k < count; ++k) {
    const int64_t from = side * k / count, size = side * (k + 1) / count - from;
    Piece piece{0, 0, rows_, columns_};
    (wide ? piece.first_row : piece.first_column) = from;
    (wide ? piece.rows : piece.columns) = size;
    out.push_back(piece);
  }
  return out;
}

int64_t MatrixStep::scratch(const MatrixHow &how, int threads) const {
  int64_t most = 0;
  for (const Piece &piece : pieces(how))
    most = std::max(most, orthogonalize_scratch(piece.rows, piece.columns, threads));
  return padded(elements()) + most;
}

// torch's own rule, its "original" one, makes tall matrices' updates longer.
double MatrixStep::scale(const MatrixHow &how, const Piece &piece) const {
  const auto rows = static_cast<double>(transposed_ ? piece.columns : piece.rows);
  const auto columns = static_cast<double>(transposed_ ? piece.rows : piece.columns);
  const double scale = how.match_rms ? kRms * std::sqrt(std::max(rows, columns))
                                     : std::sqrt(std::max(1.0, rows / columns));
  return how.factor * scale;
}

// Of the norm: what it would be if all elements were as large as the largest. A sum of squares
// would overflow long before the elements do, and says nothing of a small matrix beside large ones.
// As integers, of which a NaN is larger than all numbers, the largest is the same on any number of
// threads.
double MatrixStep::bound(const float *memory, const Piece &piece, int threads) const {
  const float *const first = memory + piece.first_row * columns_ + piece.first_column;
  int32_t most = 0;
#pragma omp parallel for schedule(static) reduction(max : most)                                    \
    num_threads(threads) if (threads > 1 && piece.rows * piece.columns > kElementsAlone)
  for (int64_t i = 0; i < piece.rows; ++i) {
    int32_t of_row = 0;
    for (int64_t j = 0; j < piece.columns; ++j) {
      int32_t bits = 0;
      std::memcpy(&bits, first + i * columns_ + j, sizeof bits);
      of_row = std::max(of_row, bits & 0x7fffffff);
    }
    most = std::max(most, of_row);
  }
  float largest = 0;
  std::memcpy(&largest, &most, sizeof largest);
  return largest * std::sqrt(static_cast<double>(piece.rows * piece.columns));
}

void MatrixStep::orthogonalize(const Kernels &kernels, const MatrixHow &how, float *memory,
                               int threads) const {
  float *const scratch = memory + padded(elements());
  for (const Piece &piece : pieces(how)) {
    const SubMatrix matrix{memory + piece.first_row * columns_ + piece.first_column, piece.rows,
                           piece.columns, columns_};
    const double norm = bound(memory, piece, threads);
    cosmic::orthogonalize(kernels, matrix, norm, how.eps, scale(how, piece), how.polynomial,
                          scratch, threads);
  }
  std::fill(memory + elements(), scratch, 0.0f);
}

MatrixRoom::MatrixRoom(const std::vector<const MatrixStep *> &matrices,
                       const std::vector<MatrixHow> &hows, int threads) {
  const int64_t most_of_one = std::max(kSmall, kTogether / std::max(threads, 1));
  int64_t count = 0;
  for (size_t k = 0; k < matrices.size(); ++k) {
    small_.push_back(matrices[k]->scratch(hows[k], 1) <= most_of_one);
    count += small_.back();
  }
  side_by_side_ = static_cast<int>(std::min<int64_t>(std::max(threads, 1), count));
  for (size_t k = 0; k < matrices.size(); ++k) {
    if (side_by_side_ < 2 && !matrices[k]->is_tiny()) small_[k] = false;
    int64_t &most = small_[k] ? of_small_ : of_large_;
    most = std::max(most, matrices[k]->scratch(hows[k], small_[k] ? 1 : threads));
  }
}

int64_t MatrixRoom::floats() const { return std::max(of_small_ * side_by_side_, of_large_); }

bool takes_turn(uint32_t index, int every, int64_t steps) {
  const uint64_t share = static_cast<uint32_t>(index * 0x9e3779b9u); // of 2^32
  return steps % every == static_cast<int64_t>(share * static_cast<uint64_t>(every) >> 32);
}

} // namespace cosmic
