// Gate `calibrated_agar`: a factor in [c_min, 1] on the updates of a parameter group from how well
// its gradients agree over time, as casmo-optimizer 0.3 has it. With the new moments m and v of
// each element, held within limits against outliers,
//   s = m^2      n = max(v - s, eps)      agar = mean(s / (s + n + eps))
// is near 1 where gradients repeat and near 0 where they are noise. The first samples calibrate:
//   tau = median, within bounds      sigma = max(standard deviation, 0.01)
//   factor = c + (1 - c) / (1 + exp(-(agar - tau) / sigma))
// with c = 0.1, 0.3 or 0.5, less the more the samples vary. Until then factor = max(agar, c_min).
#pragma once

#include <cstdint>
#include <deque>
#include <optional>

namespace cosmic {

// The state of one parameter group.
class CalibratedAgar {
public:
  struct Options {
    int64_t tau_init_steps = 500;                // samples that calibrate
    double tau_lowest = 0.01, tau_highest = 0.5; // bounds of tau
    double c_min = 0.1;                          // before calibration
  };
  // What the samples said; known once calibrated.
  struct Calibration {
    double tau, mean, std, median, p10, p90, c_min;
  };

  explicit CalibratedAgar(const Options &options);

  const Options &options() const { return options_; }
  void set_options(const Options &options);

  // Takes a sample and returns the factor that goes with it. One that is not finite is not kept and
  // has the least factor.
  double confidence(double agar);

  const std::optional<Calibration> &calibration() const { return calibration_; }
  const std::deque<double> &samples() const { return samples_; } // empty once calibrated
  int64_t capacity() const { return capacity_; }                 // of samples; older ones go
  std::optional<double> current_agar() const { return current_agar_; }
  std::optional<double> current_confidence() const { return current_confidence_; }

  // Goes on from a state that was saved.
  void restore(const std::optional<Calibration> &calibration, std::deque<double> samples,
               int64_t capacity);

private:
  void collect(double agar);
  double factor(double agar) const;

  Options options_;
  int64_t capacity_;
  std::deque<double> samples_;
  std::optional<Calibration> calibration_;
  std::optional<double> current_agar_, current_confidence_;
};

// The mean over `numel` elements whose terms add up to `sum`.
double agar_of(double sum, double numel);

} // namespace cosmic
