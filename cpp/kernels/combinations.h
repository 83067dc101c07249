// The table of combinations that were measured to find which are worth compiling as a whole. What
// else can be combined, the parts say themselves (goes_with).
#pragma once

#include "kernels/composition.h"
#include "parts/list.h"

// X(arithmetic, rule, m, m_slow, v, probe, heat): the parts by their names. The slow average
// has the codec of the fast one. A row that is `hot` is compiled as a whole, inlined, beside the
// parts that all rows share; that costs 3 to 20 KB of code for each ISA, so a reason stands beside
// it. The reasons are times by parts as multiples of the inlined ones: bench/parts, in cache, one
// thread, AVX2. What is not hot has, likewise: with a first moment in fp32 or bf16, or none, 0.97
// to 1.16; in q8 to u1, 1.05 to 1.25; in ustate 1.06 to 1.26, in costate 0.99 to 1.01; under belief
// 0.99 to 1.10; of doubles 1.03 to 1.15. A measuring pass has 1.33 for costate, 1.00 to 1.16 for
// agar.
#define COSMIC_WITH_AND_WITHOUT_SLOW(X, M, V, heat)                                                \
  X(float, adam, M, none, V, none, heat)                                                           \
  X(float, adam, M, M, V, none, shared)

// The three are one codec, and one code.
#define COSMIC_WITH_ROWS_AND_COLUMNS(X, M, heat)                                                   \
  COSMIC_WITH_AND_WITHOUT_SLOW(X, M, factored, heat)                                               \
  COSMIC_WITH_AND_WITHOUT_SLOW(X, M, rowmean, heat)                                                \
  COSMIC_WITH_AND_WITHOUT_SLOW(X, M, colmean, heat)

#define COSMIC_WITH_LOG_LEVELS(X, M, Probe, heat_of_4)                                             \
  X(float, adam, M, none, vlog2, Probe, shared)                                                    \
  X(float, adam, M, none, vlog3, Probe, shared)                                                    \
  X(float, adam, M, none, vlog4, Probe, heat_of_4)                                                 \
  X(float, adam, M, none, vlog6, Probe, shared)                                                    \
  X(float, adam, M, none, vlog8, Probe, shared)

#define COSMIC_COMBINATIONS(X)                                                                     \
  X(float, sign, none, none, none, none, hot)      /* 1.22; tier 0 */                              \
  COSMIC_WITH_AND_WITHOUT_SLOW(X, fp32, fp32, hot) /* 1.05; AdamW's */                             \
  COSMIC_WITH_AND_WITHOUT_SLOW(X, fp32, bf16, shared)                                              \
  COSMIC_WITH_AND_WITHOUT_SLOW(X, fp32, v4, shared)                                                \
  COSMIC_WITH_LOG_LEVELS(X, fp32, none, shared)                                                    \
  X(float, adam, ustate, none, fp32, none, shared)                                                 \
  X(float, adam, ustate, none, v4, none, hot)  /* 1.30; TurboAdam with v4 */                       \
  COSMIC_WITH_LOG_LEVELS(X, ustate, none, hot) /* 1.11; TurboAdam's default */                     \
  X(float, adam, costate, none, fp32, costate, shared)                                             \
  COSMIC_WITH_LOG_LEVELS(X, costate, costate, shared)                                              \
  COSMIC_WITH_ROWS_AND_COLUMNS(X, fp32, shared)                                                    \
  COSMIC_WITH_AND_WITHOUT_SLOW(X, bf16, fp32, shared)                                              \
  COSMIC_WITH_AND_WITHOUT_SLOW(X, bf16, bf16, hot) /* 1.14 */                                      \
  COSMIC_WITH_AND_WITHOUT_SLOW(X, bf16, v4, shared)                                                \
  COSMIC_WITH_ROWS_AND_COLUMNS(X, bf16, shared)                                                    \
  COSMIC_WITH_AND_WITHOUT_SLOW(X, q8, q8, hot) /* 1.20 */                                          \
  COSMIC_WITH_AND_WITHOUT_SLOW(X, q8, v4, shared)                                                  \
  COSMIC_WITH_ROWS_AND_COLUMNS(X, q8, hot) /* 1.34 */                                              \
  COSMIC_WITH_AND_WITHOUT_SLOW(X, u4, q8, shared)                                                  \
  COSMIC_WITH_AND_WITHOUT_SLOW(X, u4, v4, hot)        /* 1.20 */                                   \
  COSMIC_WITH_ROWS_AND_COLUMNS(X, u4, hot)            /* 1.36 */                                   \
  COSMIC_WITH_AND_WITHOUT_SLOW(X, u2, v4, hot)        /* 1.18; 1.4 with AVX-512 */                 \
  COSMIC_WITH_ROWS_AND_COLUMNS(X, u2, hot)            /* 1.37 */                                   \
  COSMIC_WITH_AND_WITHOUT_SLOW(X, u1, v4, hot)        /* 1.18; 1.4 with AVX-512 */                 \
  COSMIC_WITH_ROWS_AND_COLUMNS(X, u1, hot)            /* 1.37 */                                   \
  X(float, softsign, fp32, none, factored, none, hot) /* 1.30 with AVX-512; Tiger's */             \
  X(float, rmsprop, none, none, fp32, none, shared)                                                \
  X(float, rmsprop, none, none, v4, none, shared)                                                  \
  X(float, rmsprop, none, none, factored, none, hot) /* 1.19; tier 1 */                            \
  X(float, rmsprop, none, none, rowmean, none, hot)  /* the same code */                           \
  X(float, rmsprop, none, none, colmean, none, hot)  /* the same code */                           \
  X(float, belief, fp32, none, fp32, agar, shared)                                                 \
  X(float, belief, bf16, none, bf16, agar, shared)                                                 \
  X(float, belief, q8, none, q8, agar, shared)                                                     \
  X(float, belief, q8, none, v4, agar, shared)                                                     \
  X(float, belief, q8, none, factored, agar, shared)                                               \
  X(float, belief, u4, none, q8, agar, shared)                                                     \
  X(float, belief, u4, none, v4, agar, shared)                                                     \
  X(float, belief, u4, none, factored, agar, shared)                                               \
  X(double, belief, fp64, none, fp64, agar, shared)                                                \
  X(double, sign, none, none, none, none, shared)                                                  \
  X(double, adam, fp64, none, fp64, none, shared)                                                  \
  X(double, adam, fp64, fp64, fp64, none, shared)                                                  \
  X(float, adam, fp32, none, fp32, calibrated_agar, hot) /* 1.23, measuring; CASMO's */            \
  X(float, adam, bf16, none, bf16, calibrated_agar, shared)                                        \
  X(float, adam, q8, none, q8, calibrated_agar, shared)                                            \
  X(float, adam, q8, none, v4, calibrated_agar, shared)                                            \
  X(float, adam, u4, none, v4, calibrated_agar, shared)                                            \
  X(double, adam, fp64, none, fp64, calibrated_agar, hot) /* 2.6, measuring */

namespace cosmic {

// The rows of the table, counted.
#define COSMIC_COUNT(...) +1
constexpr int kCombinations = 0 COSMIC_COMBINATIONS(COSMIC_COUNT);
#undef COSMIC_COUNT

enum class Heat : uint8_t { hot, shared };

struct Combination {
  Composition parts;
  ProbeAt probe;
};

// The table as data.
struct Combinations {
#define COSMIC_ROW(Real, Rule, M, Slow, Var, Probe, heat)                                          \
  {{sizeof(Real) == 8, static_cast<int>(RuleAt::Rule), static_cast<int>(CodecAt::M),               \
    static_cast<int>(CodecAt::Slow), static_cast<int>(CodecAt::Var),                               \
    Heat::heat == Heat::hot ? 0 : -1},                                                             \
   ProbeAt::Probe},
  Combination rows[kCombinations] = {COSMIC_COMBINATIONS(COSMIC_ROW)};
#undef COSMIC_ROW

  constexpr Combinations() {
    for (int k = 0; k < kCombinations; ++k)
      if (rows[k].parts.hot >= 0) rows[k].parts.hot = k;
  }
};
constexpr Combinations kTable;

} // namespace cosmic
