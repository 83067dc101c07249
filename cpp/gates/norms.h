// What gates of norms share: factors from how long a tensor's update is beside its parameter.
//   R_p = max(rms(p), param_floor)        R_u = rms(u), u the rule's update before any gate
// One floor, as Adafactor has it for its relative step (Shazeer & Stern, arXiv 1804.04235, section
// 8) and NFNets for clipping (Brock et al., 2102.06171), so that a tensor that starts at zero
// moves, and moves by a bounded step. Lagged, R_p is of the parameter as it is all the same: the
// sum at the end of a step is the one at the beginning of the next; R_u is a step old. Nobody knows
// it before the first step: that one is measured. With norm_decay the squared R_u is averaged.
#pragma once

#if !defined(COSMIC_TARGET) // they have no arithmetic of their own

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "parts/gate.h"

namespace cosmic::parts {

namespace norms {

// Options, of each of these gates the first; and what they are of.
enum { kParamFloor, kDecay, kOf, kFirstOfGate };
constexpr const char *kSamples[] = {"tensor", "row", "group", nullptr};
enum { kTensor, kRow, kGroup };

// Of the parameter and the update, the last that were finite, and of the update not zero.
enum { kSquareParam, kSquareUpdate };

inline bool starts(const double *numbers) { return numbers[kSquareUpdate] == 0; }
inline bool by_group(const double *options) { return options[kOf] == kGroup; }
inline bool by_row(const double *options) { return options[kOf] == kRow; }
inline const char *refuse(const double *options) {
  return by_row(options) && options[kDecay] > 0
             ? "norm_granularity 'row' and a norm_decay; nothing is kept of rows that could be "
               "averaged: expected norm_decay 0"
             : nullptr;
}

inline void observe(double *numbers, const Sums &sums, const GateStep &step) {
  const double p = sums.param_rms * sums.param_rms, u = sums.update_rms * sums.update_rms;
  if (std::isfinite(p)) numbers[kSquareParam] = p;
  double &kept = numbers[kSquareUpdate];
  if (!(std::isfinite(u) && u > 0)) return;
  const double decay = step.options[kDecay];
  kept = kept == 0 ? u : decay * kept + (1 - decay) * u;
}

inline double param_rms(const double *numbers, const GateStep &step) {
  return std::max(std::sqrt(numbers[kSquareParam]), step.options[kParamFloor]);
}
// Zero where nothing is known.
inline double update_rms(const double *numbers) { return std::sqrt(numbers[kSquareUpdate]); }

inline GatePart gate(const char *name, std::vector<PartOption> options) {
  using If = PartOption::If;
  GatePart part;
  part.name = name;
  part.options = {{"param_floor", 0, kHuge, "a finite number >= 0", 1e-3, If::required},
                  {"norm_decay", 0, kBelowOne, "a number in [0, 1)", 0, If::required},
                  {"norm_granularity", 0, kGroup, "'tensor', 'row' or 'group'", kTensor,
                   If::required, PartOption::Form::choice, kSamples}};
  part.options.insert(part.options.end(), options.begin(), options.end());
  part.numbers = {"gate_norms", {{"mean of p^2"}, {"mean of u^2"}}};
  part.square_param = part.square_update = true;
  part.starts = starts;
  part.by_group = by_group;
  part.by_row = by_row;
  part.refuse = refuse;
  part.observe = observe;
  return part;
}

} // namespace norms

} // namespace cosmic::parts

#endif
