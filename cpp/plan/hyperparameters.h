// What each hyper-parameter may be that every rule has: one home for the ranges, whatever door a
// value comes in by. Those of parts are theirs.
#pragma once

#include "parts/part.h"

namespace cosmic {

struct Range {
  const char *name;
  double low, high;     // both are inside
  const char *expected; // for messages

  bool contains(double x) const { return x >= low && x <= high; } // never a NaN or an infinity
};

namespace ranges {

inline constexpr Range kLr{"lr", 0, kHuge, "a finite number >= 0"};
inline constexpr Range kBeta1{"beta1", 0, kBelowOne, "a number in [0, 1)"};
inline constexpr Range kBeta2{"beta2", 0, kBelowOne, "a number in [0, 1)"};
inline constexpr Range kEps{"eps", 0, kHuge, "a finite number >= 0"};
inline constexpr Range kWeightDecay{"weight_decay", 0, kHuge, "a finite number >= 0"};
} // namespace ranges

// Throws Error that names the hyper-parameter if `x` is out of its range.
void check(const Range &range, double x);

} // namespace cosmic
