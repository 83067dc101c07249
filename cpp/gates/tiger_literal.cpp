#include "gates/tiger_literal.h"

#include <algorithm>
#include <cmath>

#include "gates/named_reader.h"

namespace cosmic {

namespace {

constexpr double kTiny = 1e-12; // under a norm that something is divided by

} // namespace

void TigerLiteral::set_options(const NamedValues &options) {
  constexpr const char *kPositive = "a finite number > 0", *kAtLeastZero = "a finite number >= 0";
  const NamedReader given(options, "", " is ");
  Options read;
  read.trusts = given.truth("use_trust_ratio");
  read.by_momentum = given.truth("by_momentum");
  read.trust_clip = given.number("trust_clip", kAboveZero, kHuge, kPositive);
  read.trust_ema_beta = given.number("trust_ema_beta", 0, kBelowOne, "a number in [0, 1)");
  read.agc_clip = given.number("agc_clip", 0, kHuge, kAtLeastZero);
  read.agc_eps = given.number("agc_eps", 0, kHuge, kAtLeastZero);
  read.rms_clip_threshold = given.number("rms_clip_threshold", 0, kHuge, kAtLeastZero);
  options_ = read;
}

double TigerLiteral::take(double ratio) {
  if (!std::isfinite(ratio)) return 1.0;
  const double beta = options_.trust_ema_beta;
  if (beta > 0) {
    ratio = beta * average_.value_or(ratio) + (1.0 - beta) * ratio;
    average_ = ratio;
  }
  return ratio;
}

NamedValues TigerLiteral::save() const {
  return {{"trust_average", average_ ? Named::Value(*average_) : Named::Value()}};
}

void TigerLiteral::load(const NamedValues &values) {
  const NamedReader saved(values, "saved average of trust ratios has ", " ");
  std::optional<double> average;
  if (saved.has("trust_average"))
    average = saved.number("trust_average", 0, kHuge, "None or a finite number >= 0");
  average_ = average;
}

double TigerLiteral::factor(const Norms &norms) {
  double factor = 1.0, length = norms.update;
  if (options_.agc_clip > 0) {
    const double limit = options_.agc_clip * (norms.param + options_.agc_eps);
    if (length > limit) {
      factor = limit / length;
      length = limit;
    }
  }
  const double rms = length / std::sqrt(norms.numel);
  if (options_.rms_clip_threshold > 0 && rms > 0)
    factor *= std::min(1.0, options_.rms_clip_threshold / rms);
  if (!options_.trusts) return factor;
  const double below = options_.by_momentum ? norms.preconditioned : length;
  const double ratio = norms.param > 0 && below > 0 ? norms.param / (below + kTiny) : 1.0;
  return factor * std::min(options_.trust_clip, take(ratio));
}

// ---- what the gate says of itself
// ----------------------------------------------------------------

namespace parts {

namespace {

enum { kOfMomentum, kParam, kFactor };                   // from look to look; nothing is kept
enum { kSquareM, kSquareUpdate, kSquarePreconditioned }; // what the probe adds up

void observe_momentum(double *numbers, const Sums &sums, const GateStep &step) {
  numbers[kOfMomentum] = 1.0 / (std::sqrt(sums.probed[kSquareM] / sums.numel) + step.eps);
  numbers[kParam] = std::fabs(step.decay) * sums.param_rms * std::sqrt(sums.numel);
}

void set_momentum(Coefficients &c, const double *numbers, const GateStep & /*step*/) {
  c.of_gate[0] = numbers[kOfMomentum];
}

void observe(double *numbers, const Sums &sums, const GateStep &step) {
  const TigerLiteral::Norms norms{numbers[kParam], std::sqrt(sums.probed[kSquareUpdate]),
                                  std::sqrt(sums.probed[kSquarePreconditioned]), sums.numel};
  numbers[kFactor] = static_cast<TigerLiteral &>(*step.memory).factor(norms);
}

double factor(const double *numbers, const GateStep & /*step*/) { return numbers[kFactor]; }

} // namespace

GatePart tiger_literal() {
  GatePart part;
  part.name = "tiger_literal";
  part.rule = "tiger";
  part.probe = "tiger";
  part.square_param = true;
  part.exact_only = true;
  part.remember = []() -> std::unique_ptr<GateMemory> { return std::make_unique<TigerLiteral>(); };
  part.factor = factor;
  part.coefficients = set_momentum;
  part.observe = observe;
  part.looks_again = [](const GateStep & /*step*/) { return true; };
  part.observe_first = observe_momentum;
  return part;
}

} // namespace parts

} // namespace cosmic
