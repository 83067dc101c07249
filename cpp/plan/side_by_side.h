// Items of one tensor, shared out to threads.
#pragma once

#include <cstdint>

#include "isa/float_environment.h"

namespace cosmic {

// Calls work(k) for every k below `count`.
template <class Work> void for_each_side_by_side(int64_t count, int threads, Work work) {
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1 && count > 1)
  for (int64_t k = 0; k < count; ++k) {
    const DefaultFloatEnvironment environment;
    work(k);
  }
}

} // namespace cosmic
