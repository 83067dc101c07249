// The arithmetic of a tile (matmul/tile.h): all of its sums are kept in registers while k runs.
#pragma once

#include <utility>

#include "isa/lanes.h"
#include "matmul/tile.h"

namespace cosmic::COSMIC_TARGET {

// As many sums as leave registers for a row of b, an a and a product.
#if defined(COSMIC_LANES_AVX512)
constexpr int kTileRows = 16, kTileLanes = 1; // 16 of 32 registers
#elif defined(COSMIC_LANES_AVX2)
constexpr int kTileRows = 6, kTileLanes = 1; // 12 of 16
#elif defined(COSMIC_LANES_NEON)
constexpr int kTileRows = 6, kTileLanes = 1; // 24 of 32
#else
constexpr int kTileRows = 2, kTileLanes = 1; // 8 of 16
#endif
constexpr int kTileColumns = kTileLanes * kLanes;
static_assert(kTileRows <= kMostPanel && kTileColumns <= kMostPanel);
static_assert(kTileRows * kTileColumns <= kMostTileElements);

template <class Visit, int... k>
COSMIC_INLINE void visit_numbers(std::integer_sequence<int, k...> /*numbers*/, Visit visit) {
  (visit(Number<k>{}), ...);
}
template <class Visit> COSMIC_INLINE void for_each_row(Visit visit) {
  visit_numbers(std::make_integer_sequence<int, kTileRows>{}, visit);
}
template <class Visit> COSMIC_INLINE void for_each_column(Visit visit) {
  visit_numbers(std::make_integer_sequence<int, kTileLanes>{}, visit);
}

struct TileSums {
  F32 at[kTileRows][kTileLanes];
};

COSMIC_INLINE void open_tile(const Tile &tile, TileSums &sums) {
  for_each_row([&](auto row) COSMIC_LAMBDA {
    constexpr int r = decltype(row)::value;
    for_each_column([&](auto column) COSMIC_LAMBDA {
      constexpr int j = decltype(column)::value;
      sums.at[r][j] =
          tile.first ? F32::splat(0) : F32::load(tile.c + r * tile.c_stride + j * kLanes);
    });
  });
}

COSMIC_INLINE void add_products(const float *a, const float *b, TileSums &sums) {
  F32 of_b[kTileLanes];
  for_each_column([&](auto column) COSMIC_LAMBDA {
    constexpr int j = decltype(column)::value;
    of_b[j] = F32::load(b + j * kLanes);
  });
  for_each_row([&](auto row) COSMIC_LAMBDA {
    constexpr int r = decltype(row)::value;
    const F32 of_a = F32::splat(a[r]);
    for_each_column([&](auto column) COSMIC_LAMBDA {
      constexpr int j = decltype(column)::value;
      sums.at[r][j] = sums.at[r][j] + of_a * of_b[j];
    });
  });
}

COSMIC_INLINE void close_tile(const Tile &tile, TileSums &sums) {
  const F32 alpha = F32::splat(tile.alpha), beta = F32::splat(tile.beta);
  for_each_row([&](auto row) COSMIC_LAMBDA {
    constexpr int r = decltype(row)::value;
    for_each_column([&](auto column) COSMIC_LAMBDA {
      constexpr int j = decltype(column)::value;
      F32 x = sums.at[r][j];
      if (tile.last) x = alpha * x;
      if (tile.last && tile.d) x = x + beta * F32::load(tile.d + r * tile.d_stride + j * kLanes);
      x.store(tile.c + r * tile.c_stride + j * kLanes);
    });
  });
}

COSMIC_CALL static void run_tile(const Tile &tile) {
  // what is written at the end is on its way while k runs
  for (int r = 0; r < kTileRows; ++r) __builtin_prefetch(tile.c + r * tile.c_stride, 1);
  TileSums sums;
  open_tile(tile, sums);
  const float *a = tile.a, *b = tile.b;
  const float *const end = a + tile.depth * kTileRows;
#pragma GCC unroll 4
  for (; a != end; a += kTileRows, b += kTileColumns) add_products(a, b, sums);
  close_tile(tile, sums);
}

} // namespace cosmic::COSMIC_TARGET
