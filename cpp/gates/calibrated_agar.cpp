#include "gates/calibrated_agar.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>
#include <vector>

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

} // namespace

CalibratedAgar::CalibratedAgar(const Options &options)
    : options_(options), capacity_(options.tau_init_steps) {}

void CalibratedAgar::set_options(const Options &options) {
  options_ = options;
  capacity_ = std::max(capacity_, options.tau_init_steps); // or it would never be full
}

double CalibratedAgar::confidence(double agar) {
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

void CalibratedAgar::restore(const std::optional<Calibration> &calibration,
                             std::deque<double> samples, int64_t capacity) {
  calibration_ = calibration;
  samples_ = std::move(samples);
  capacity_ = std::max(capacity, options_.tau_init_steps);
  current_agar_.reset();
  current_confidence_.reset();
}

double agar_of(double sum, double numel) { return std::clamp(sum / numel, 0.0, 1.0); }

} // namespace cosmic
