// What a codec needs of a block beside its own memory.
#pragma once

#include "codecs/random.h"
#include "kernels/matrix_sums.h"

namespace cosmic::COSMIC_TARGET {

struct BlockContext {
  BlockRandom random;
  float v_scale_before, eps; // of the denominator that the last step's update units were made with
  MatrixSums *matrix;        // of a codec that keeps rows and columns
};

// A group of 16 lanes of a block, by number: known when compiling, so that shifts are constants.
template <int kIndex> struct Group {
  static constexpr int index = kIndex;
};

template <class Visit> COSMIC_INLINE void for_each_group(Visit visit) {
  visit(Group<0>{}), visit(Group<1>{}), visit(Group<2>{}), visit(Group<3>{});
  visit(Group<4>{}), visit(Group<5>{}), visit(Group<6>{}), visit(Group<7>{});
}

// What a codec that stores each element as it comes leaves to be encoded: nothing.
struct Nothing {};

constexpr uint32_t kInfinityBits = 0x7f800000u;

COSMIC_INLINE uint32_t bits_of(float x) {
  uint32_t bits;
  __builtin_memcpy(&bits, &x, 4);
  return bits;
}
COSMIC_INLINE float float_of(uint32_t bits) {
  float x;
  __builtin_memcpy(&x, &bits, 4);
  return x;
}

} // namespace cosmic::COSMIC_TARGET
