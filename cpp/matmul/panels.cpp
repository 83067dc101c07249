#include "matmul/panels.h"

#include <algorithm>
#include <cstring>

namespace cosmic {

namespace {

typedef float Four __attribute__((vector_size(16)));

Four load_four(const float *from) {
  Four out;
  std::memcpy(&out, from, sizeof(out));
  return out;
}

struct Square {
  Four row[4];
};

// Four by four numbers, the other way round.
Square transposed(const Square &in) {
  const auto &[a, b, c, d] = in.row;
  const Four ab_low = __builtin_shufflevector(a, b, 0, 4, 1, 5);
  const Four ab_high = __builtin_shufflevector(a, b, 2, 6, 3, 7);
  const Four cd_low = __builtin_shufflevector(c, d, 0, 4, 1, 5);
  const Four cd_high = __builtin_shufflevector(c, d, 2, 6, 3, 7);
  return {{__builtin_shufflevector(ab_low, cd_low, 0, 1, 4, 5),
           __builtin_shufflevector(ab_low, cd_low, 2, 3, 6, 7),
           __builtin_shufflevector(ab_high, cd_high, 0, 1, 4, 5),
           __builtin_shufflevector(ab_high, cd_high, 2, 3, 6, 7)}};
}

Square load_square(const float *from, int64_t step) {
  return {{load_four(from), load_four(from + step), load_four(from + 2 * step),
           load_four(from + 3 * step)}};
}

// `kWidth` columns, at most four, of which each lies in one run of memory.
template <int kWidth>
void pack_runs(const float *from, int64_t step, int64_t rows, int panel, float factor, float *to) {
  const Four by = {factor, factor, factor, factor};
  int64_t k = 0;
  for (; k + 4 <= rows; k += 4) {
    Square in = {};
    for (int j = 0; j < kWidth; ++j) in.row[j] = load_four(from + j * step + k) * by;
    const Square out = transposed(in);
    for (int i = 0; i < 4; ++i)
      std::memcpy(to + (k + i) * panel, &out.row[i], kWidth * sizeof(float));
  }
  for (; k < rows; ++k)
    for (int j = 0; j < kWidth; ++j) to[k * panel + j] = from[j * step + k] * factor;
}

// Rows that lie in one run of memory, four numbers at a time.
template <int kPanel>
void copy_rows(const float *from, int64_t step, int64_t rows, float factor, float *to) {
  constexpr int kFours = kPanel / 4 * 4;
  const Four by = {factor, factor, factor, factor};
  for (int64_t k = 0; k < rows; ++k, from += step, to += kPanel) {
    for (int j = 0; j < kFours; j += 4) {
      const Four x = load_four(from + j) * by;
      std::memcpy(to + j, &x, sizeof(x));
    }
    for (int j = kFours; j < kPanel; ++j) to[j] = from[j] * factor;
  }
}

template <int kPanel>
void pack_whole(const MatrixView &from, int64_t rows, float factor, float *to) {
  if (from.column_step == 1) return copy_rows<kPanel>(from.data, from.row_step, rows, factor, to);
  constexpr int kFours = kPanel / 4 * 4;
  for (int j = 0; j < kFours; j += 4)
    pack_runs<4>(from.at(0, j), from.column_step, rows, kPanel, factor, to + j);
  if constexpr (kPanel > kFours)
    pack_runs<kPanel - kFours>(from.at(0, kFours), from.column_step, rows, kPanel, factor,
                               to + kFours);
}

void pack_any(const MatrixView &from, int64_t rows, int64_t width, int panel, float factor,
              float *to) {
  for (int64_t k = 0; k < rows; ++k) {
    for (int64_t j = 0; j < width; ++j) to[k * panel + j] = *from.at(k, j) * factor;
    for (int64_t j = width; j < panel; ++j) to[k * panel + j] = 0;
  }
}

} // namespace

void pack_panel(const MatrixView &from, int64_t rows, int64_t width, int panel, float factor,
                float *to) {
  const bool runs = from.column_step == 1 || from.row_step == 1;
  if (width < panel || !runs) return pack_any(from, rows, width, panel, factor, to);
  switch (panel) {
  case 2:
    return pack_whole<2>(from, rows, factor, to);
  case 6:
    return pack_whole<6>(from, rows, factor, to);
  case 16:
    return pack_whole<16>(from, rows, factor, to);
  default:
    return pack_any(from, rows, width, panel, factor, to);
  }
}

namespace {

// Rows [i, i + rows) at columns [j, j + columns), all left of the diagonal, to the other side of
// it.
void mirror_block(float *matrix, int64_t stride, int64_t i, int64_t rows, int64_t j,
                  int64_t columns) {
  int64_t c = 0;
  for (; c + 4 <= columns; c += 4) {
    int64_t r = 0;
    for (; r + 4 <= rows; r += 4) {
      const Square out = transposed(load_square(matrix + (i + r) * stride + j + c, stride));
      for (int k = 0; k < 4; ++k)
        std::memcpy(matrix + (j + c + k) * stride + i + r, &out.row[k], sizeof(Four));
    }
    for (; r < rows; ++r)
      for (int k = 0; k < 4; ++k)
        matrix[(j + c + k) * stride + i + r] = matrix[(i + r) * stride + j + c + k];
  }
  for (; c < columns; ++c)
    for (int64_t r = 0; r < rows; ++r)
      matrix[(j + c) * stride + i + r] = matrix[(i + r) * stride + j + c];
}

} // namespace

void mirror_rows(float *matrix, int64_t stride, int64_t size, int64_t first, int64_t last,
                 float factor) {
  if (factor != 1)
    for (int64_t i = first; i < size; ++i)
      for (int64_t j = first; j < std::min(i + 1, last); ++j) matrix[i * stride + j] *= factor;
  for (int64_t i = first; i < last; ++i)
    for (int64_t j = first; j < i; ++j) matrix[j * stride + i] = matrix[i * stride + j];
  constexpr int64_t kRows = 32;
  for (int64_t i = last; i < size; i += kRows)
    mirror_block(matrix, stride, i, std::min(kRows, size - i), first, last - first);
}

} // namespace cosmic
