// Gates over the rows of a plan: which rows are looked at together, what was added up over them,
// and what follows from it, for this step or for the next one.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "plan/row.h"

namespace cosmic {

// Active rows whose gate looks at them together: one tensor, or all of a group.
struct GateSample {
  size_t first, last; // positions in the list of active rows
  GateMemory *memory;
  double numbers[kMostNumbers] = {}; // all of its rows have the same
};

class Gating {
public:
  Gating(std::vector<Row> &rows, const std::vector<int> &active, const std::vector<Group> &groups,
         const std::vector<std::shared_ptr<GateMemory>> &memories,
         std::vector<Coefficients> &coefficients)
      : rows_(rows), active_(active), groups_(groups), memories_(memories),
        coefficients_(coefficients) {}

  // The factor of a row whose own numbers say it; 1 where it comes from a measuring pass, or from
  // what the group keeps.
  double own_factor(const Row &row) const;
  // What the gate of such a row tells its arithmetic.
  void set_own(size_t a);

  // The samples of the rows that are measured before the step, or of the others: groups in order,
  // parameters in order.
  std::vector<GateSample> samples(bool exact) const;
  const Row &first_row(const GateSample &sample) const { return row(sample.first); }
  bool looks_again(const GateSample &sample) const;

  // After a measuring pass, the first where the gate looks again: limits for the second.
  void take_first_look(GateSample &sample);
  // After the last: the factor of this step.
  void take_exact(GateSample &sample);
  // Before the step, rows of a gate that keeps something of the group: what the last step left.
  void apply_lagged();
  // After the step: what the next one will find.
  void take_lagged(GateSample &sample);

private:
  Row &row(size_t a) const { return rows_[static_cast<size_t>(active_[a])]; }
  GateMemory *memory_of(const Row &row) const;
  GateStep step_of(const Row &row) const;
  Sums sums_of(const GateSample &sample, double *probed) const;
  void set(size_t a, const double *numbers);
  void scale(size_t a, double factor);
  void keep(const GateSample &sample);

  std::vector<Row> &rows_;
  const std::vector<int> &active_;
  const std::vector<Group> &groups_;
  const std::vector<std::shared_ptr<GateMemory>> &memories_;
  std::vector<Coefficients> &coefficients_; // by position in the list of active rows
};

} // namespace cosmic
