// The one table of what can be combined: arithmetic, rule, and the codec of each slot. A new codec
// or rule is a file of its own and a line here for every combination that it should run in.
#pragma once

// X(arithmetic, rule, m, m_slow, v): the names of the rule and of the codecs, as in C++. The slow
// average has the codec of the fast one.
#define COSMIC_WITH_AND_WITHOUT_SLOW(X, M, V)                                                      \
  X(float, Adam, M, None, V)                                                                       \
  X(float, Adam, M, M, V)

#define COSMIC_WITH_ROWS_AND_COLUMNS(X, M)                                                         \
  COSMIC_WITH_AND_WITHOUT_SLOW(X, M, Factored)                                                     \
  COSMIC_WITH_AND_WITHOUT_SLOW(X, M, RowMean)                                                      \
  COSMIC_WITH_AND_WITHOUT_SLOW(X, M, ColMean)

#define COSMIC_COMBINATIONS(X)                                                                     \
  X(float, Sign, None, None, None)                                                                 \
  COSMIC_WITH_AND_WITHOUT_SLOW(X, Fp32, Fp32)                                                      \
  COSMIC_WITH_AND_WITHOUT_SLOW(X, Fp32, Bf16)                                                      \
  COSMIC_WITH_AND_WITHOUT_SLOW(X, Fp32, V4)                                                        \
  COSMIC_WITH_ROWS_AND_COLUMNS(X, Fp32)                                                            \
  COSMIC_WITH_AND_WITHOUT_SLOW(X, Bf16, Fp32)                                                      \
  COSMIC_WITH_AND_WITHOUT_SLOW(X, Bf16, Bf16)                                                      \
  COSMIC_WITH_AND_WITHOUT_SLOW(X, Bf16, V4)                                                        \
  COSMIC_WITH_ROWS_AND_COLUMNS(X, Bf16)                                                            \
  COSMIC_WITH_AND_WITHOUT_SLOW(X, Q8, Q8)                                                          \
  COSMIC_WITH_AND_WITHOUT_SLOW(X, Q8, V4)                                                          \
  COSMIC_WITH_ROWS_AND_COLUMNS(X, Q8)                                                              \
  COSMIC_WITH_AND_WITHOUT_SLOW(X, U4, Q8)                                                          \
  COSMIC_WITH_AND_WITHOUT_SLOW(X, U4, V4)                                                          \
  COSMIC_WITH_ROWS_AND_COLUMNS(X, U4)                                                              \
  COSMIC_WITH_AND_WITHOUT_SLOW(X, U2, V4)                                                          \
  COSMIC_WITH_ROWS_AND_COLUMNS(X, U2)                                                              \
  COSMIC_WITH_AND_WITHOUT_SLOW(X, U1, V4)                                                          \
  COSMIC_WITH_ROWS_AND_COLUMNS(X, U1)                                                              \
  X(float, RmsProp, None, None, Fp32)                                                              \
  X(float, RmsProp, None, None, V4)                                                                \
  X(float, RmsProp, None, None, Factored)                                                          \
  X(float, RmsProp, None, None, RowMean)                                                           \
  X(float, RmsProp, None, None, ColMean)                                                           \
  X(double, Sign, None, None, None)                                                                \
  X(double, Adam, Fp64, None, Fp64)                                                                \
  X(double, Adam, Fp64, Fp64, Fp64)

namespace cosmic {

// The rows of the table, counted.
#define COSMIC_COUNT(...) +1
constexpr int kCombinations = 0 COSMIC_COMBINATIONS(COSMIC_COUNT);
#undef COSMIC_COUNT

} // namespace cosmic
