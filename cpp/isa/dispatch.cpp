#include "isa/dispatch.h"

#include <cstdlib>

#include "core/error.h"

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

struct Implementation {
  const char *name;
  const Kernels *kernels;
  bool (*supported)();
};

#if defined(COSMIC_HAS_AVX2)
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c"); }
#endif
#if defined(COSMIC_HAS_AVX512)
bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && has_avx2();
}
#endif
bool always() { return true; }

// In order of preference.
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

std::string joined_isas() {
  std::string out;
  for (const std::string &name : available_isas()) out += (out.empty() ? "" : ", ") + name;
  return out;
}

struct Choice {
  const Kernels *kernels = nullptr;
  std::string error;

  Choice() {
    const char *asked = std::getenv("COSMIC_ISA");
    try {
      kernels = &kernels_for(asked && *asked ? asked : available_isas().front());
    } catch (const Error &caught) {
      error = std::string("environment variable COSMIC_ISA: ") + caught.what();
    }
  }
};

} // namespace

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  for (const Implementation &i : kImplementations)
    if (i.supported()) names.emplace_back(i.name);
  return names;
}

const Kernels &kernels_for(const std::string &isa) {
  for (const Implementation &i : kImplementations)
    if (isa == i.name && i.supported()) return *i.kernels;
  throw Error(ErrorKind::value, "ISA '" + isa + "' is not available here; available: " +
                                    joined_isas() + " (in lower case)");
}

const Kernels &chosen_kernels() {
  static const Choice choice;
  if (!choice.kernels) throw Error(ErrorKind::runtime, choice.error);
  return *choice.kernels;
}

} // namespace cosmic
