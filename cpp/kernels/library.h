// All that the library of kernels exports. Nothing but plain data crosses its border: no exception,
// no class of the standard library.
#pragma once

#include "kernels/kernels.h"

#if defined(_WIN32) && defined(cosmic_kernels_EXPORTS)
#define COSMIC_EXPORT __declspec(dllexport)
#elif defined(_WIN32)
#define COSMIC_EXPORT __declspec(dllimport)
#else
#define COSMIC_EXPORT __attribute__((visibility("default")))
#endif

namespace cosmic {

// The kernels of one ISA, and whether this CPU runs them.
struct Implementation {
  const char *name;
  const Kernels *kernels;
  bool (*supported)();
};

// Of this build, in order of preference; the last is "scalar", which every CPU runs.
struct Implementations {
  const Implementation *first;
  int count;
  const Implementation *begin() const { return first; }
  const Implementation *end() const { return first + count; }
};
COSMIC_EXPORT Implementations implementations();

} // namespace cosmic
