// Gate `calibrated_agar` over the rows of a plan: which rows are sampled together, and what follows
// from their sums.
#pragma once

#include <cstddef>
#include <limits>
#include <memory>
#include <vector>

#include "gates/calibrated_agar.h"
#include "plan/row.h"

namespace cosmic {

// What a row of the lagged gate keeps between steps: of the last step, the means over what it is
// sampled with, and the factor.
namespace agar_state {
enum { kMeanAbsM, kMeanV, kFactor, kSize };
} // namespace agar_state

// How a parameter group is gated.
struct AgarGate {
  std::shared_ptr<CalibratedAgar> calibration; // null: not by this gate
  bool by_tensor = false;                      // a sample each tensor, else one of the whole group
  double clamp_factor = std::numeric_limits<double>::infinity();

  bool clamps() const { return clamp_factor < std::numeric_limits<double>::infinity(); }
};

// Active rows that make one sample.
struct AgarSample {
  AgarGate *gate;
  size_t first, last; // positions in the list of active rows
  double mean_abs_m = 0, mean_v = 0, agar = 0;

  // Takes the means from what the rows' probes have added up.
  void add_up(const std::vector<Row> &rows, const std::vector<int> &active);
  // The ratio from what was seen of the rows' blocks.
  void add_up_looks(const std::vector<Row> &rows, const std::vector<int> &active);
};

// The samples of the active rows whose gate is `kind`: groups in order, parameters in order.
std::vector<AgarSample> agar_samples(AgarKind kind, const std::vector<Row> &rows,
                                     const std::vector<int> &active, std::vector<AgarGate> &gates);

// Limits of the moments, from the means that a sample has.
void set_agar_limits(Coefficients &c, const AgarGate &gate, double mean_abs_m, double mean_v);

// Scales the update.
void scale_update(Coefficients &c, Row &row, double factor);

} // namespace cosmic
