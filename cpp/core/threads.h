// The threads of an OpenMP region, of which there is one where it is built without.
#pragma once

#if defined(_OPENMP)
#include <omp.h>
#endif

namespace cosmic {

inline int thread_number() {
#if defined(_OPENMP)
  return omp_get_thread_num();
#else
  return 0;
#endif
}

} // namespace cosmic
