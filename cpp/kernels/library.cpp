// Which ISAs this build has and which of them this CPU runs. Compiled for the baseline.
#include "kernels/library.h"

namespace cosmic {

#define COSMIC_DECLARE(target)                                                                     \
  namespace target {                                                                               \
  extern const Kernels kernels;                                                                    \
  }
COSMIC_DECLARE(scalar)
#if defined(COSMIC_HAS_AVX2)
COSMIC_DECLARE(avx2)
#endif
#if defined(COSMIC_HAS_AVX512)
COSMIC_DECLARE(avx512)
#endif
#if defined(COSMIC_HAS_NEON)
COSMIC_DECLARE(neon)
#endif
#undef COSMIC_DECLARE

namespace {

#if defined(COSMIC_HAS_AVX2)
bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("f16c");
}
#endif
#if defined(COSMIC_HAS_AVX512)
bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && has_avx2();
}
#endif
bool always() { return true; }

const Implementation kImplementations[] = {
#if defined(COSMIC_HAS_AVX512)
    {"avx512", &avx512::kernels, has_avx512},
#endif
#if defined(COSMIC_HAS_AVX2)
    {"avx2", &avx2::kernels, has_avx2},
#endif
#if defined(COSMIC_HAS_NEON)
    {"neon", &neon::kernels, always}, // part of the AArch64 baseline
#endif
    {"scalar", &scalar::kernels, always},
};

} // namespace

Implementations implementations() {
  return {kImplementations, sizeof(kImplementations) / sizeof(kImplementations[0])};
}

} // namespace cosmic
