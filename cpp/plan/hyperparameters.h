// What each hyper-parameter may be: one home for the ranges, whatever door a value comes in by.
#pragma once

namespace cosmic {

struct Range {
  const char *name;
  double low, high; // both inside, unless high is open
  bool open_high;
  const char *expected; // for messages

  bool contains(double x) const; // false for infinities and NaN
};

inline constexpr double kHuge = 1e300;
inline constexpr Range kLrRange{"lr", 0, kHuge, false, "a finite number >= 0"};
inline constexpr Range kBeta1Range{"beta1", 0, 1, true, "a number in [0, 1)"};
inline constexpr Range kBeta2Range{"beta2", 0, 1, true, "a number in [0, 1)"};
inline constexpr Range kEpsRange{"eps", 0, kHuge, false, "a finite number >= 0"};
inline constexpr Range kWeightDecayRange{"weight_decay", 0, kHuge, false, "a finite number >= 0"};

// Throws Error that names the hyper-parameter if `x` is out of its range.
void check(const Range &range, double x);

} // namespace cosmic
