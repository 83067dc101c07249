#include "gates/calibrated_agar.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>
#include <vector>

#include "gates/named_reader.h"

namespace cosmic {

namespace {

constexpr double kLeastStd = 0.01;
constexpr double kTiny = 1e-8; // keeps a coefficient of variation finite

// How far down the factor may go, by the samples' coefficient of variation.
double adaptive_c_min(double variation) {
  if (variation > 0.5) return 0.1;
  return variation > 0.3 ? 0.3 : 0.5;
}

double mean_of(const std::vector<double> &x) {
  return std::accumulate(x.begin(), x.end(), 0.0) / static_cast<double>(x.size());
}

// Of the whole population.
double std_of(const std::vector<double> &x, double mean) {
  double sum = 0;
  for (const double value : x) sum += (value - mean) * (value - mean);
  return std::sqrt(sum / static_cast<double>(x.size()));
}

// The quantile q of sorted numbers, between two of them in proportion.
double quantile(const std::vector<double> &sorted, double q) {
  const double at = q * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(at);
  const double share = at - static_cast<double>(below);
  const double from = sorted[below], to = sorted[std::min(below + 1, sorted.size() - 1)];
  return from + share * (to - from);
}

CalibratedAgar::Calibration calibrated(const std::deque<double> &samples,
                                       const CalibratedAgar::Options &options) {
  const std::vector<double> x(samples.begin(), samples.end());
  std::vector<double> sorted = x;
  std::sort(sorted.begin(), sorted.end());
  const double mean = mean_of(x), std = std_of(x, mean), median = quantile(sorted, 0.5);
  CalibratedAgar::Calibration found{};
  found.tau = std::min(std::max(median, options.tau_lowest), options.tau_highest);
  found.mean = mean;
  found.std = std::max(std, kLeastStd);
  found.median = median;
  found.p10 = quantile(sorted, 0.1);
  found.p90 = quantile(sorted, 0.9);
  found.c_min = adaptive_c_min(std / (mean + kTiny));
  return found;
}

// ---- what a checkpoint holds
// ---------------------------------------------------------------------

constexpr const char *kSample = "a list of numbers in [0, 1]";

std::optional<CalibratedAgar::Calibration> calibration_of(const NamedReader &saved) {
  const auto *initialized = std::get_if<bool>(&saved.get("tau_initialized").value);
  if (!initialized && saved.has("tau_initialized"))
    saved.refuse("tau_initialized", "True or False");
  if (!initialized || !*initialized) return std::nullopt;
  CalibratedAgar::Calibration out{};
  out.tau = saved.number("tau", -kHuge, kHuge, "a finite number");
  out.mean = saved.share("agar_mean");
  out.std = saved.number("agar_std", 1 / kHuge, kHuge, "a finite number > 0");
  out.median = saved.share("agar_median");
  out.p10 = saved.share("agar_p10");
  out.p90 = saved.share("agar_p90");
  out.c_min = saved.share("c_min");
  return out;
}

} // namespace

void CalibratedAgar::set_options(const NamedValues &options) {
  constexpr int64_t kLeastSamples = 50;
  const NamedReader given(options, "", " is ");
  Options read;
  read.tau_init_steps = given.whole("tau_init_steps", kLeastSamples, "an int >= 50");
  constexpr const char *kRange = "two finite numbers, the lower first";
  const std::vector<double> range = given.numbers("tau_clip_range", -kHuge, kHuge, kRange);
  if (range.size() != 2 || !(range[0] <= range[1])) given.refuse("tau_clip_range", kRange);
  read.tau_lowest = range[0];
  read.tau_highest = range[1];
  read.c_min = given.share("c_min");
  if (given.has("agar_clamp_factor"))
    read.clamp_factor = given.number("agar_clamp_factor", 0, kHuge, "None or a number >= 0");
  options_ = read;
  capacity_ = std::max(capacity_, options_.tau_init_steps); // or it would never be full
}

double CalibratedAgar::take(double agar) {
  if (std::isfinite(agar) && !calibration_) collect(agar);
  const double found = factor(agar);
  current_agar_ = agar;
  current_confidence_ = found;
  return found;
}

void CalibratedAgar::collect(double agar) {
  samples_.push_back(agar);
  while (static_cast<int64_t>(samples_.size()) > capacity_) samples_.pop_front();
  if (static_cast<int64_t>(samples_.size()) < options_.tau_init_steps) return;
  calibration_ = calibrated(samples_, options_);
  samples_.clear();
}

double CalibratedAgar::factor(double agar) const {
  const double least = calibration_ ? calibration_->c_min : options_.c_min;
  if (!std::isfinite(agar)) return least;
  if (!calibration_) return std::clamp(agar, least, 1.0);
  const double z = (agar - calibration_->tau) / calibration_->std;
  return std::clamp(least + (1.0 - least) / (1.0 + std::exp(-z)), least, 1.0);
}

NamedValues CalibratedAgar::save() const {
  const auto known = [this](double Calibration::*field) -> Named::Value {
    if (!calibration_) return {};
    return (*calibration_).*field;
  };
  return {{"tau", known(&Calibration::tau)},
          {"tau_initialized", calibration_.has_value()},
          {"agar_buffer", std::vector<double>(samples_.begin(), samples_.end())},
          {"agar_buffer_maxlen", capacity_},
          {"agar_mean", known(&Calibration::mean)},
          {"agar_std", known(&Calibration::std)},
          {"agar_median", known(&Calibration::median)},
          {"agar_p10", known(&Calibration::p10)},
          {"agar_p90", known(&Calibration::p90)},
          {"c_min", calibration_ ? calibration_->c_min : options_.c_min}};
}

void CalibratedAgar::load(const NamedValues &values) {
  const NamedReader saved(values, "saved calibration has ", " ");
  const auto calibration = calibration_of(saved);
  std::vector<double> samples;
  if (saved.has("agar_buffer")) samples = saved.numbers("agar_buffer", 0, 1, kSample);
  int64_t capacity = 0;
  if (saved.has("agar_buffer_maxlen"))
    capacity = saved.whole("agar_buffer_maxlen", 0, "None or an int >= 0");
  calibration_ = calibration;
  samples_.assign(samples.begin(), samples.end());
  capacity_ = std::max(capacity, options_.tau_init_steps);
  current_agar_.reset();
  current_confidence_.reset();
}

NamedValues CalibratedAgar::seen() const {
  const auto value = [](const std::optional<double> &x) {
    return x ? Named::Value(*x) : Named::Value();
  };
  return {{"current_agar", value(current_agar_)},
          {"current_confidence", value(current_confidence_)}};
}

// ---- what the gate says of itself
// ----------------------------------------------------------------

namespace parts {

namespace {

enum { kMeanAbsM, kMeanV, kFactor }; // numbers: of the last sample, where it is lagged
enum { kAbsM, kV, kRatio };          // what the probe adds up

CalibratedAgar &memory_of(const GateStep &step) {
  return static_cast<CalibratedAgar &>(*step.memory);
}

// Of a row that has seen nothing but zeros so far, nothing is known.
double factor(const double *numbers, const GateStep &step) {
  return step.exact || numbers[kMeanV] > 0 ? numbers[kFactor] : 1.0;
}

void set_limits(Coefficients &c, const double *numbers, const GateStep &step) {
  if (!step.exact && !(numbers[kMeanV] > 0)) return;
  const double clamp = memory_of(step).clamp_factor().value_or(INFINITY);
  c.m_limit = clamp * (numbers[kMeanAbsM] + step.eps);
  c.v_limit = clamp * (numbers[kMeanV] + step.eps);
}

bool clamps(const GateStep &step) {
  return memory_of(step).clamp_factor().value_or(INFINITY) < INFINITY;
}

void observe_means(double *numbers, const Sums &sums, const GateStep & /*step*/) {
  numbers[kMeanAbsM] = sums.probed[kAbsM] / sums.numel;
  numbers[kMeanV] = sums.probed[kV] / sums.numel;
}

void observe(double *numbers, const Sums &sums, const GateStep &step) {
  if (!step.exact) observe_means(numbers, sums, step);
  const double ratio = step.exact ? sums.looked : sums.probed[kRatio];
  numbers[kFactor] = memory_of(step).take(std::clamp(ratio / sums.numel, 0.0, 1.0));
}

} // namespace

GatePart calibrated_agar() {
  GatePart part;
  part.name = "calibrated_agar";
  part.numbers = {"gate_calibrated_agar", {{"mean of |m|"}, {"mean of v"}, {"factor"}}};
  part.probe = "agar";
  part.keeps_if_exact = false;
  part.refuses_nonfinite = true;
  part.remember = []() -> std::unique_ptr<GateMemory> {
    return std::make_unique<CalibratedAgar>();
  };
  part.factor = factor;
  part.coefficients = set_limits;
  part.observe = observe;
  part.looks_again = clamps;
  part.observe_first = observe_means;
  return part;
}

} // namespace parts

} // namespace cosmic
