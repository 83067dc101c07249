// One tile of a matrix product, as the kernels of an ISA compute it. Plain data.
//
// An element is the sum over k = 0, 1, 2, ... of a * b, one after the other, each product rounded
// before it is added: what every ISA can do. So its bits depend on nothing but the numbers: not on
// the size of a tile, not on how the sum is cut into stretches of k, not on threads.
#pragma once

#include <cstdint>

namespace cosmic {

// C = alpha (A B) + beta D, rounded after each product and sum.
struct Tile {
  const float *a; // of each k the tile's rows, one beside the other
  const float *b; // of each k the tile's columns
  int64_t depth;  // how many k
  float *c;       // sums so far, and what becomes of them
  int64_t c_stride;
  const float *d; // null: none
  int64_t d_stride;
  float alpha, beta;
  bool first; // whether sums start at zero, not at what c holds
  bool last;  // whether sums are complete, to be scaled
};

// How an ISA computes them.
struct TileKernel {
  int rows, columns; // of a tile
  void (*run)(const Tile &tile);
};

constexpr int kMostPanel = 32, kMostTileElements = 12 * 32; // of every ISA

} // namespace cosmic
