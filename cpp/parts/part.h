// What every part (a rule, a gate, a codec) says of itself in its own file, so that the plan, the
// doors and Python can work with it without knowing its name: its options, and the numbers that it
// keeps of a tensor from step to step.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "core/types.h"
#include "parts/group.h"

namespace cosmic {

// A hyper-parameter of a parameter group that the part reads.
struct PartOption {
  enum class If { absent, required, none_is_zero, absent_or_none };
  // A number; a bool; an int; a multiple of one half; one of three numbers, which are options of
  // the same name one behind the other; or one of some texts, by its place.
  enum class Form { number, truth, whole, halves, first, second, third, choice };

  const char *name;
  double low, high;     // both are inside
  const char *expected; // for messages
  double fallback;      // its default
  // Whether a group may be without it, or must have it, where None may stand for 0: those are
  // options of Cosmic's own, which put them into every group. `absent_or_none`: None is 0, too.
  If missing = If::absent;
  Form form = Form::number;
  const char *const *choices = nullptr; // and a null behind the last
  double none = 0;                      // what None stands for where that is not 0

  bool allows_none() const { return missing == If::none_is_zero || missing == If::absent_or_none; }
  bool allows_absence() const { return missing == If::absent || missing == If::absent_or_none; }
};

// Ends of options' ranges.
inline constexpr double kHuge = 1e300, kAboveZero = 0x1p-1022, kBelowOne = 1 - 0x1p-53;

// A number that the part keeps of a tensor.
struct Number {
  const char *name;
  double initial = 0;
};

// One entry of a tensor's state: all numbers of a part.
struct Numbers {
  std::string key; // of the entry; for a codec, what follows the key of its slot
  std::vector<Number> of;
  bool f32 = false; // else float64

  explicit operator bool() const { return !of.empty(); }
  bool operator==(const Numbers &other) const {
    return key == other.key && f32 == other.f32 &&
           std::equal(of.begin(), of.end(), other.of.begin(), other.of.end(),
                      [](const Number &a, const Number &b) {
                        return a.initial == b.initial && std::string(a.name) == b.name;
                      });
  }
  int64_t size() const { return static_cast<int64_t>(of.size()); }
};

constexpr int64_t kMostNumbers = 8; // of a part

struct Part {
  std::string name;
  std::vector<PartOption> options;
  Numbers numbers;
  // Sums that the part asks for beside those of every step: the name of a probe, or "none".
  std::string probe = "none";
  bool square_param = false; // asks for the sum of the squared new parameter, too; before a step,
                             // of the parameter as it is

  // As the registry has put them: the first of its options within Group::options, its place in the
  // list of its kind, and that of its probe.
  mutable size_t first_option = 0;
  mutable int place = 0, probe_place = 0;

  // What is wrong with options that are each in range; null: nothing.
  const char *(*refuse)(const double *options) = nullptr;

  const double *options_in(const Group &group) const { return group.options.data() + first_option; }
};

// What a step, or a pass before it, has added up over what is looked at together: a tensor, or all
// tensors of a group.
struct Sums {
  double numel = 0;
  double mean_abs_gradient = 0; // mean of |g|
  // Root mean squares: of the rule's u as the kernels have it, and times the rule's own factors; of
  // the new parameter, where a part asks for it. Before a step NaN where no part asks, and that of
  // the parameter as it is.
  double unscaled_rms = 0, update_rms = 0, param_rms = 0;
  const double *probed = nullptr; // of the part's probe
  double looked = 0;              // of what a probe keeps by block
};

} // namespace cosmic
