// What each hyper-parameter may be: one home for the ranges, whatever door a value comes in by.
#pragma once

namespace cosmic {

struct Range {
  const char *name;
  double low, high;     // both are inside
  const char *expected; // for messages

  bool contains(double x) const { return x >= low && x <= high; } // never a NaN or an infinity
};

namespace ranges {

inline constexpr double kHuge = 1e300, kAboveZero = 0x1p-1022, kBelowOne = 1 - 0x1p-53;

inline constexpr Range kLr{"lr", 0, kHuge, "a finite number >= 0"};
inline constexpr Range kBeta1{"beta1", 0, kBelowOne, "a number in [0, 1)"};
inline constexpr Range kBeta2{"beta2", 0, kBelowOne, "a number in [0, 1)"};
inline constexpr Range kEps{"eps", 0, kHuge, "a finite number >= 0"};
inline constexpr Range kWeightDecay{"weight_decay", 0, kHuge, "a finite number >= 0"};
inline constexpr Range kBetaSlow{"beta_slow", kAboveZero, kBelowOne, "None, or a number in (0, 1)"};
inline constexpr Range kAlpha{"alpha", 0, kHuge, "a finite number >= 0"};
inline constexpr Range kSlowWarmup{"slow_warmup", 0, 1e15, "None, or a number of steps >= 0"};
inline constexpr Range kCMin{"c_min", 0, 1, "a number in [0, 1]"};

inline constexpr Range kRobustness{"robustness", 0, kHuge, "a finite number >= 0"};
inline constexpr Range kRelFloor{"rel_floor", 0, 1, "a number in [0, 1]"};
inline constexpr Range kMStepFactor{"m_step_factor", kAboveZero, kHuge, "a finite number > 0"};
inline constexpr Range kNullPct{"null_pct", 0, 1, "a number in [0, 1]"};
inline constexpr Range kAmpPct{"amp_pct", 0, 1, "a number in [0, 1]"};

} // namespace ranges

// Throws Error that names the hyper-parameter if `x` is out of its range.
void check(const Range &range, double x);

} // namespace cosmic
