// Copies of operands in the order in which a tile reads them (matmul/product_kernels.h).
#pragma once

#include <cstdint>

#include "isa/lanes.h"
#include "matmul/view.h"

namespace cosmic::COSMIC_TARGET {

template <class T> struct Four {
  typedef T type __attribute__((vector_size(4 * sizeof(T))));
};

// Four by four numbers, the other way round.
template <class Fours> COSMIC_INLINE void transpose(Fours (&x)[4]) {
  const Fours ab_low = __builtin_shufflevector(x[0], x[1], 0, 4, 1, 5);
  const Fours ab_high = __builtin_shufflevector(x[0], x[1], 2, 6, 3, 7);
  const Fours cd_low = __builtin_shufflevector(x[2], x[3], 0, 4, 1, 5);
  const Fours cd_high = __builtin_shufflevector(x[2], x[3], 2, 6, 3, 7);
  x[0] = __builtin_shufflevector(ab_low, cd_low, 0, 1, 4, 5);
  x[1] = __builtin_shufflevector(ab_low, cd_low, 2, 3, 6, 7);
  x[2] = __builtin_shufflevector(ab_high, cd_high, 0, 1, 4, 5);
  x[3] = __builtin_shufflevector(ab_high, cd_high, 2, 3, 6, 7);
}

// `width` columns from `column` on, one number after the other.
template <class From, class To> COSMIC_INLINE void pack_numbers(const MatrixViewOf<From> &from,
                                                                int64_t rows, int64_t column,
                                                                int64_t width, int panel, To *to) {
  for (int64_t k = 0; k < rows; ++k)
    for (int64_t j = column; j < column + width; ++j) to[k * panel + j] = (To)*from.at(k, j);
}

// Four columns from `column` on, of which each lies in one run of memory.
template <class From, class To> COSMIC_INLINE void
pack_four_runs(const MatrixViewOf<From> &from, int64_t rows, int64_t column, int panel, To *to) {
  using Read = typename Four<From>::type;
  using Written = typename Four<To>::type;
  int64_t k = 0;
  for (; k + 4 <= rows; k += 4) {
    Read x[4];
    for (int j = 0; j < 4; ++j) __builtin_memcpy(&x[j], from.at(k, column + j), sizeof(x[j]));
    transpose(x);
    for (int i = 0; i < 4; ++i) {
      const Written out = __builtin_convertvector(x[i], Written);
      __builtin_memcpy(to + (k + i) * panel + column, &out, sizeof(out));
    }
  }
  for (; k < rows; ++k)
    for (int64_t j = column; j < column + 4; ++j) to[k * panel + j] = (To)*from.at(k, j);
}

// Rows that lie in one run of memory.
template <int kPanel, class From, class To>
COSMIC_INLINE void pack_rows(const MatrixViewOf<From> &from, int64_t rows, To *to) {
  for (int64_t k = 0; k < rows; ++k) {
    const From *row = from.at(k, 0);
#pragma GCC unroll 32
    for (int j = 0; j < kPanel; ++j) to[k * kPanel + j] = (To)row[j];
  }
}

template <class From, class To> COSMIC_CALL static void
pack_panel(const MatrixViewOf<From> &from, int64_t rows, int64_t width, int panel, To *to) {
  if (from.column_step == 1 && width == panel) {
    switch (panel) {
    case 2:
      return pack_rows<2>(from, rows, to);
    case 6:
      return pack_rows<6>(from, rows, to);
    case 8:
      return pack_rows<8>(from, rows, to);
    case 16:
      return pack_rows<16>(from, rows, to);
    default:
      break;
    }
  }
  int64_t packed = 0;
  if (from.row_step == 1)
    for (; packed + 4 <= width; packed += 4) pack_four_runs(from, rows, packed, panel, to);
  pack_numbers(from, rows, packed, width - packed, panel, to);
  for (int64_t k = 0; k < rows; ++k)
    for (int64_t j = width; j < panel; ++j) to[k * panel + j] = 0;
}

} // namespace cosmic::COSMIC_TARGET
