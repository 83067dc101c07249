// Work on many pieces that do not depend on one another, by several threads.
#pragma once

#include <algorithm>
#include <cstdint>

#include "isa/float_environment.h"

namespace cosmic {

// work(first, last) for pieces of `count` items. Which thread does which must make no difference.
template <class Work>
void for_each_piece(int64_t count, int64_t piece, int threads, const Work &work) {
  piece = std::max<int64_t>(piece, 1);
  const int64_t pieces = (count + piece - 1) / piece;
  const auto used = static_cast<int>(std::clamp<int64_t>(pieces, 1, std::max(threads, 1)));
#pragma omp parallel num_threads(used) if (used > 1)
  {
    const DefaultFloatEnvironment environment;
#pragma omp for schedule(dynamic)
    for (int64_t n = 0; n < pieces; ++n) work(n * piece, std::min((n + 1) * piece, count));
  }
}

// Elements that are worth a piece of their own.
constexpr int64_t kElementsOfPiece = 16384;

// work(row) for every row.
template <class Work>
void for_each_row(int64_t rows, int64_t columns, int threads, const Work &work) {
  const int64_t piece = kElementsOfPiece / std::max<int64_t>(columns, 1);
  for_each_piece(rows, piece, threads, [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) work(row);
  });
}

} // namespace cosmic
