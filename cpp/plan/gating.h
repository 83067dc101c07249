// Gates over the rows of a plan: which rows are looked at together, what was added up over them,
// and what follows from it, for this step or for the next one. A row may have several gates, whose
// factors are multiplied in the order of the registry.
#pragma once

#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include "plan/row.h"

namespace cosmic {

// Active rows that a gate looks at together: one tensor, or all of a group that have the gate.
struct GateSample {
  const GatePart *gate;
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

  // Before the rows are asked for their own factors.
  void find_newcomers();
  // The product of the factors of a row's gates whose own numbers say them; 1 where they come from
  // a measuring pass, or from what the group keeps.
  double own_factor(const Row &row) const;
  // What such gates tell their arithmetic.
  void set_own(size_t a);

  // The samples that are measured before the step, or those of it: groups in order, gates in order,
  // parameters in order.
  std::vector<GateSample> samples(bool before) const;
  // Whether a pass before the step measures a row for a sample. A matrix that is stepped as a whole
  // has its update within the step alone.
  bool is_measured(const GateSample &sample, size_t a) const;
  bool looks_again(const GateSample &sample) const;
  // Whether it asks for the squared update of a row of which another gate that is measured before
  // this step shapes each coordinate: it is measured once that is known.
  bool waits(const GateSample &sample) const;

  // After a measuring pass, the first where the gate looks again: limits for the second.
  void take_first_look(GateSample &sample);
  // After the last: the factor of this step.
  void take_exact(GateSample &sample);
  // Within the step of a matrix as a whole, whose update is there and has been measured.
  bool measures_whole(const Row &row) const;
  void take_whole(size_t a);
  // Whether a gate looks at each row of the tensor, and the product of the factors of those that do
  // for one whose parameter and update have these root mean squares.
  bool by_row(const Row &row) const;
  double row_factor(const Row &row, double numel, double param_rms, double update_rms) const;
  // Multiplies a row's update by what has been found for it.
  void scale(size_t a, double factor);
  // Before the step, rows of a gate that keeps something of the group: what the last step left.
  void apply_lagged();
  // After the step: what the next one will find.
  void take_lagged(GateSample &sample);

private:
  Row &row(size_t a) const { return rows_[static_cast<size_t>(active_[a])]; }
  GateMemory *memory_of(const Row &row, const GatePart &gate) const;
  GateStep step_of(const Row &row, const GatePart &gate) const;
  GateStep step_of(const GateSample &sample) const {
    return step_of(row(sample.first), *sample.gate);
  }
  // Whether the factor follows from the row's numbers alone, and is known when the step begins.
  bool is_own(const Row &row, const RowGate &gate) const;
  bool measures(const Row &row, const RowGate &gate) const;
  bool measures_whole(const Row &row, const RowGate &gate) const;
  bool looks_together(const Row &row, const GatePart &gate) const;
  bool by_row(const Row &row, const GatePart &gate) const;
  size_t end_of_group(size_t first) const;
  void add_samples(std::vector<GateSample> &out, const GatePart &gate, size_t first, size_t last,
                   bool before) const;
  GateSample sample_of(const GatePart &gate, size_t first, size_t last) const;
  Sums sums_of(const GateSample &sample, bool before, double *probed) const;
  void set(size_t a, const GatePart &gate, const double *numbers);
  void keep(const GateSample &sample);
  // Calls visit(position, gate of the row) for each row of the sample.
  template <class Visit> void for_each_row(const GateSample &sample, Visit visit) const;

  std::vector<Row> &rows_;
  const std::vector<int> &active_;
  const std::vector<Group> &groups_;
  const std::vector<std::shared_ptr<GateMemory>> &memories_;
  std::vector<Coefficients> &coefficients_; // by position in the list of active rows
  // Gates of a group that look at it together, while one of its tensors knows nothing: then all of
  // it is measured.
  std::vector<std::pair<int, const GatePart *>> newcomers_;
};

} // namespace cosmic
