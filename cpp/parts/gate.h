// What a gate says of itself: a factor on updates, from how trustworthy gradients are, or from how
// long the update is beside the parameter.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "parts/part.h"

namespace cosmic {

// A value that a door hands in or takes out, with the text that messages call it by.
struct Named {
  struct Other {}; // what none of the rest is
  using Value = std::variant<std::monostate, bool, int64_t, double, std::vector<double>, Other>;

  std::string name;
  Value value;
  std::string text;

  Named(std::string name, Value value, std::string text = {})
      : name(std::move(name)), value(std::move(value)), text(std::move(text)) {}
};
using NamedValues = std::vector<Named>;

// What a gate keeps of a parameter group, beside its numbers of tensors.
class GateMemory {
public:
  virtual ~GateMemory() = default;

  // Throws Error that names the option and what was expected.
  virtual void set_options(const NamedValues &options) = 0;
  // Takes a sample and returns the factor that goes with it.
  virtual double take(double sample) = 0;
  // What a checkpoint holds, and goes on from. Throws Error that names what does not fit.
  virtual NamedValues save() const = 0;
  virtual void load(const NamedValues &saved) = 0;
  // Whether it has learned what it needs samples for.
  virtual bool settled() const = 0;
  // What it saw last, which is not saved.
  virtual NamedValues seen() const = 0;

  bool by_tensor = false; // a sample each tensor, else one of the whole group
};

struct GateStep {
  const double *options;
  GateMemory *memory; // null where the gate keeps none
  bool exact;         // of sums that were measured before the step, else of the last step's
  double eps;         // of the group
  double decay;       // what weight decay leaves of the parameter
};

struct GatePart : Part {
  // The rule that the gate reads the moments of; it is no gate of another.
  std::string rule = "none";
  bool keeps_if_exact = true;     // whether there are numbers where it measures before the step
  bool refuses_nonfinite = false; // gradients, where it measures before the step
  bool exact_only = false;        // it measures before the step, whatever the group asks for
  bool square_update = false;     // asks for the sum of the squared update before the step, too
  // An option that asks for the gate where it is not None; empty: its name in option `gate` does.
  std::string implied_by;

  std::unique_ptr<GateMemory> (*remember)() = nullptr; // a memory of a group, new

  // Whether it knows nothing of the tensor yet: then it measures before this step, lagged or not.
  bool (*starts)(const double *numbers) = nullptr;
  // Whether all tensors of a group are one sample, where it keeps no memory that says it; whether
  // each row of a tensor is. The update of such a tensor waits in memory for its factors, and the
  // gate keeps nothing of it.
  bool (*by_group)(const double *options) = nullptr;
  bool (*by_row)(const double *options) = nullptr;

  // The factor of this step.
  double (*factor)(const double *numbers, const GateStep &step) = nullptr;
  // What its own arithmetic on lanes needs: the rule's, or its probe's.
  void (*coefficients)(Coefficients &c, const double *numbers, const GateStep &step) = nullptr;
  // Takes what was added up over a sample.
  void (*observe)(double *numbers, const Sums &sums, const GateStep &step) = nullptr;
  // Whether a second look before the step follows from the first, and what the first leaves for it.
  bool (*looks_again)(const GateStep &step) = nullptr;
  void (*observe_first)(double *numbers, const Sums &sums, const GateStep &step) = nullptr;

  bool looks_together(const Group &group) const { return by_group && by_group(options_in(group)); }
};

namespace parts {

// The option that gates share.
inline PartOption gate_c_min() {
  return {"c_min", 0, 1, "a number in [0, 1]", 0.1, PartOption::If::required};
}

} // namespace parts

} // namespace cosmic
