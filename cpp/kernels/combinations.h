// The one table of what can be combined: arithmetic, rule, and the codec of each slot. A new codec
// or rule is a file of its own and a line here for every combination that it should run in.
#pragma once

// X(arithmetic, rule, m, m_slow, v, probe): the names of the rule, of the codecs and of the sums
// that a gate or a codec asks for, as in C++. The slow average has the codec of the fast one.
#define COSMIC_WITH_AND_WITHOUT_SLOW(X, M, V)                                                      \
  X(float, Adam, M, None, V, None)                                                                 \
  X(float, Adam, M, M, V, None)

#define COSMIC_WITH_ROWS_AND_COLUMNS(X, M)                                                         \
  COSMIC_WITH_AND_WITHOUT_SLOW(X, M, Factored)                                                     \
  COSMIC_WITH_AND_WITHOUT_SLOW(X, M, RowMean)                                                      \
  COSMIC_WITH_AND_WITHOUT_SLOW(X, M, ColMean)

#define COSMIC_WITH_LOG_LEVELS(X, M, Probe)                                                        \
  X(float, Adam, M, None, VLog2, Probe)                                                            \
  X(float, Adam, M, None, VLog3, Probe)                                                            \
  X(float, Adam, M, None, VLog4, Probe)                                                            \
  X(float, Adam, M, None, VLog6, Probe)                                                            \
  X(float, Adam, M, None, VLog8, Probe)

#define COSMIC_COMBINATIONS(X)                                                                     \
  X(float, Sign, None, None, None, None)                                                           \
  COSMIC_WITH_AND_WITHOUT_SLOW(X, Fp32, Fp32)                                                      \
  COSMIC_WITH_AND_WITHOUT_SLOW(X, Fp32, Bf16)                                                      \
  COSMIC_WITH_AND_WITHOUT_SLOW(X, Fp32, V4)                                                        \
  COSMIC_WITH_LOG_LEVELS(X, Fp32, None)                                                            \
  X(float, Adam, UState, None, Fp32, None)                                                         \
  X(float, Adam, UState, None, V4, None)                                                           \
  COSMIC_WITH_LOG_LEVELS(X, UState, None)                                                          \
  X(float, Adam, CoState, None, Fp32, Alignment)                                                   \
  COSMIC_WITH_LOG_LEVELS(X, CoState, Alignment)                                                    \
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
  X(float, RmsProp, None, None, Fp32, None)                                                        \
  X(float, RmsProp, None, None, V4, None)                                                          \
  X(float, RmsProp, None, None, Factored, None)                                                    \
  X(float, RmsProp, None, None, RowMean, None)                                                     \
  X(float, RmsProp, None, None, ColMean, None)                                                     \
  X(float, Belief, Fp32, None, Fp32, Share)                                                        \
  X(float, Belief, Bf16, None, Bf16, Share)                                                        \
  X(float, Belief, Q8, None, Q8, Share)                                                            \
  X(float, Belief, Q8, None, V4, Share)                                                            \
  X(float, Belief, Q8, None, Factored, Share)                                                      \
  X(float, Belief, U4, None, Q8, Share)                                                            \
  X(float, Belief, U4, None, V4, Share)                                                            \
  X(float, Belief, U4, None, Factored, Share)                                                      \
  X(double, Belief, Fp64, None, Fp64, Share)                                                       \
  X(double, Sign, None, None, None, None)                                                          \
  X(double, Adam, Fp64, None, Fp64, None)                                                          \
  X(double, Adam, Fp64, Fp64, Fp64, None)                                                          \
  X(float, Adam, Fp32, None, Fp32, Agar)                                                           \
  X(float, Adam, Bf16, None, Bf16, Agar)                                                           \
  X(float, Adam, Q8, None, Q8, Agar)                                                               \
  X(float, Adam, Q8, None, V4, Agar)                                                               \
  X(float, Adam, U4, None, V4, Agar)                                                               \
  X(double, Adam, Fp64, None, Fp64, Agar)

namespace cosmic {

// The rows of the table, counted.
#define COSMIC_COUNT(...) +1
constexpr int kCombinations = 0 COSMIC_COMBINATIONS(COSMIC_COUNT);
#undef COSMIC_COUNT

} // namespace cosmic
