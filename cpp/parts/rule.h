// What a rule says of itself: how parameter, gradient and decoded slots make the update.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "matmul/newton_schulz.h"
#include "parts/part.h"

namespace cosmic {

// What a rule's coefficients follow from, beside its options and numbers.
struct RuleStep {
  const Group &group;
  const double *options;
  int64_t steps;       // of the tensor, before this one
  int64_t first_start; // the count when the first moment started from nothing
  bool slow;           // there is a slow average
  double gate;         // the factor on the update, as far as it is known
  double sign;         // -1 where the objective is maximized
  double lr;           // the group's, times the tensor's own factor
};

// How a rule that steps whole matrices makes the direction of one.
struct MatrixHow {
  NewtonSchulz polynomial;
  double eps = 0;        // a matrix whose norm is below is divided by this instead
  bool match_rms = true; // scaled to the root mean square of Adam's updates, else by torch's rule
  double factor = 1;     // on the scale
  int every = 1;         // steps between two turns of a matrix
  int blocks = 1;        // pieces of the shorter side that are orthogonalized on their own
};

struct RulePart : Part {
  int tier = 2;
  std::string arithmetic;             // the rule whose kernel it shares; empty: its own
  bool first = false, second = false; // the moments that it keeps
  bool slow = false;                  // whether it may have a slow average
  // What the rung is called by beside tier and codecs, where another rule has the same; and the
  // second moment's name in the state, where it is not exp_avg_sq.
  std::string variant, second_name = "exp_avg_sq";
  std::string gate = "none"; // the one gate that it goes with, if it needs one
  std::vector<std::pair<std::string, std::string>> goes_with; // codecs of first and second moment
  std::string codecs_of; // the rule all of whose pairs of codecs it goes with, too
  // A second moment by rows and columns divides as it will be kept, this gradient in its means, in
  // the place of each element's own: a pass before the step takes them.
  bool second_ahead = false;
  bool counts = true; // keeps the tensor's own count of steps

  // Set by a rule of whole matrices: what its pass over blocks leaves in the place of the parameter
  // is orthogonalized (plan/matrix_step.h).
  MatrixHow (*matrix)(const Group &group, const double *options) = nullptr;

  const std::string &kernel() const { return arithmetic.empty() ? name : arithmetic; }

  void (*coefficients)(Coefficients &c, const double *numbers, const RuleStep &step) = nullptr;
  // Takes what a step has added up; false if the step does not count.
  bool (*observe)(double *numbers, const Sums &sums, const RuleStep &step) = nullptr;
  // Numbers for a tensor that gives up its second moment, by the mean of the roots of its elements.
  void (*start)(double *numbers, double mean_root, const RuleStep &step) = nullptr;
};

// What several rules share.
namespace rules {

// By squaring: the same bits from every C library, unlike pow.
double integer_power(double base, int64_t exponent);

// (1 - cos(pi x)) / 2 for x in [0, 1], the same bits from every C library.
double raised_cosine(double x);

// The root mean square of Adam's update when gradients are uncorrelated in time, after warm-up:
// sqrt((1 - beta1) / (1 + beta1)). A sign has 1; times this, one learning rate fits both.
double sign_scale(double beta1);

// m <- beta1 m + gradient1 g, and what corrects its bias.
void set_first_moment(Coefficients &c, const RuleStep &step);
// v <- beta2 v + gradient2 g^2, and what corrects its bias.
void set_second_moment(Coefficients &c, const RuleStep &step);

} // namespace rules

} // namespace cosmic
