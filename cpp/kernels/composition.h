// Which parts a pass over blocks is made of. Plain data: a part is known by its place in its list
// (parts/list.h), what it computes is behind the function tables of kernels/parts.h.
#pragma once

#include <cstdint>

namespace cosmic {

// The parts of one tensor's step.
struct Composition {
  bool f64 = false;                       // its arithmetic
  int rule = 0, m = 0, m_slow = 0, v = 0; // RuleAt, CodecAt
  int hot = -1; // the row of combinations.h that is compiled of these parts as a whole
};

// A probe that a pass asks for, and which of LaneSums::probed is the first of its sums.
struct AskedProbe {
  int probe; // ProbeAt
  int first_sum = 0;
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

} // namespace cosmic
