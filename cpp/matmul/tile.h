// One tile of a matrix product, as the kernels of an ISA compute it. Plain data.
//
// An element is the sum over k = 0, 1, 2, ... of a * b, one after the other, each product rounded
// before it is added: what every ISA can do. So its bits depend on nothing but the numbers: not on
// the size of a tile, not on how the sum is cut into stretches of k, not on threads.
#pragma once

#include <cstdint>

namespace cosmic {

// out = alpha (A B) + beta D, rounded after each product and sum, and then to `out`. What is not a
// number becomes the same NaN on every ISA.
template <class Sum, class Out> struct TileOf {
  const Sum *a;  // of each k the tile's rows, one beside the other
  const Sum *b;  // of each k the tile's columns
  int64_t depth; // how many k
  Sum *c;        // sums so far; neither read nor written where they are both first and last
  int64_t c_stride;
  Out *out; // what becomes of complete sums; may be c
  int64_t out_stride;
  const Sum *d; // null: none
  int64_t d_stride;
  Sum alpha, beta;
  bool first; // whether sums start at zero, not at what c holds
  bool last;  // whether sums are complete
};

// How an ISA computes them.
template <class Sum, class Out> struct TileKernelOf {
  int rows, columns; // of a tile
  void (*run)(const TileOf<Sum, Out> &tile);
};

using Tile = TileOf<float, float>;
using TileKernel = TileKernelOf<float, float>;

constexpr int kMostPanel = 32, kMostTileElements = 12 * 32; // of every ISA

} // namespace cosmic
