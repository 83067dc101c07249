// State to numbers and numbers to state, outside a step: carrying moments to another rung, to and
// from AdamW's checkpoints, and quantizing plain tensors. Compiled once, for every machine: it runs
// rarely, and its bits are the same anyway.
#pragma once

#include <cstdint>

#include "kernels/combinations.h"
#include "kernels/matrix_sums.h"

namespace cosmic {

// Consecutive elements of one tensor's moments, from a whole block on, of float arithmetic. Values
// have room for whole blocks; those of a slot that is not there are null.
struct MomentRun {
  Planes m, m_slow, v; // of the whole tensor
  int64_t first_block;
  int64_t count; // elements
  const Coefficients *coefficients;
  MatrixSums *matrix; // as in BlockRun
  float *m_values, *slow_values, *v_values;
  double *encoded; // where a first moment's codec adds up what it does over the tensor
};

// As much of a plain tensor, packed by one codec.
struct PlainRun {
  Planes planes;
  int64_t first_block;
  int64_t count;
  uint32_t random_key;
  float *values;
};

// Codecs of plain tensors, X(name for users, C++ name): those that need nothing beside the tensor.
#define COSMIC_PLAIN_CODECS(X)                                                                     \
  X("u1", U1)                                                                                      \
  X("u2", U2)                                                                                      \
  X("u4", U4)                                                                                      \
  X("q8", PlainQ8)                                                                                 \
  X("v4", V4)                                                                                      \
  X("v8", PlainV8)

#define COSMIC_COUNT(...) +1
constexpr int kPlainCodecs = 0 COSMIC_PLAIN_CODECS(COSMIC_COUNT);
#undef COSMIC_COUNT

struct Converters {
  // by position in the table of combinations; null for arithmetic in double
  void (*decode[kCombinations])(const MomentRun &run);
  void (*encode[kCombinations])(const MomentRun &run);
  // by position in COSMIC_PLAIN_CODECS
  void (*unpack[kPlainCodecs])(const PlainRun &run);
  void (*pack[kPlainCodecs])(const PlainRun &run);
};

namespace portable {
extern const Converters converters;
}

} // namespace cosmic
