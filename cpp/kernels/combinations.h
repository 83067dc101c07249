// The one table of what can be combined: arithmetic, rule, and the codec of each slot. A new codec
// or rule is a file of its own and a line here for every combination that it should run in.
#pragma once

// X(arithmetic, rule, m, m_slow, v): the names of the rule and of the codecs, as in C++
#define COSMIC_COMBINATIONS(X)                                                                     \
  X(float, Sign, None, None, None)                                                                 \
  X(float, Adam, Fp32, None, Fp32)                                                                 \
  X(float, Adam, Fp32, Fp32, Fp32)                                                                 \
  X(float, Adam, Fp32, None, Bf16)                                                                 \
  X(float, Adam, Fp32, Fp32, Bf16)                                                                 \
  X(float, Adam, Bf16, None, Fp32)                                                                 \
  X(float, Adam, Bf16, Bf16, Fp32)                                                                 \
  X(float, Adam, Bf16, None, Bf16)                                                                 \
  X(float, Adam, Bf16, Bf16, Bf16)                                                                 \
  X(double, Sign, None, None, None)                                                                \
  X(double, Adam, Fp64, None, Fp64)                                                                \
  X(double, Adam, Fp64, Fp64, Fp64)

namespace cosmic {

// The rows of the table, counted.
#define COSMIC_COUNT(...) +1
constexpr int kCombinations = 0 COSMIC_COMBINATIONS(COSMIC_COUNT);
#undef COSMIC_COUNT

} // namespace cosmic
