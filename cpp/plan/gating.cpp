#include "plan/gating.h"

#include <algorithm>
#include <cmath>

namespace cosmic {

namespace {

// Whether the factor follows from the row's numbers alone, and is known when the step begins.
bool is_own(const Row &row) { return row.gate && !row.exact && !row.gate->remember; }

} // namespace

GateMemory *Gating::memory_of(const Row &row) const {
  const auto group = static_cast<size_t>(row.group);
  return row.gate->remember ? memories_[group].get() : nullptr;
}

GateStep Gating::step_of(const Row &row) const {
  const Group &group = groups_[static_cast<size_t>(row.group)];
  return {row.gate->options_in(group), memory_of(row), row.exact, group.eps};
}

double Gating::own_factor(const Row &row) const {
  return is_own(row) ? row.gate->factor(row.gate_numbers, step_of(row)) : 1.0;
}

void Gating::set_own(size_t a) {
  if (is_own(row(a))) set(a, row(a).gate_numbers);
}

void Gating::set(size_t a, const double *numbers) {
  const GatePart &gate = *row(a).gate;
  if (gate.coefficients) gate.coefficients(coefficients_[a], numbers, step_of(row(a)));
}

void Gating::scale(size_t a, double factor) {
  row(a).last.gate = factor;
  coefficients_[a].update_scale *= factor;
  coefficients_[a].step *= factor;
}

std::vector<GateSample> Gating::samples(bool exact) const {
  std::vector<GateSample> out;
  int group = -1; // of the last sample
  for (size_t a = 0; a < active_.size(); ++a) {
    const Row &here = row(a);
    if (!here.gate || here.exact != exact) continue;
    GateMemory *memory = memory_of(here);
    if (memory && !memory->by_tensor && here.group == group) {
      out.back().last = a + 1;
    } else {
      GateSample &sample = out.emplace_back(GateSample{a, a + 1, memory});
      for (size_t k = 0; k < here.gate->numbers.of.size(); ++k)
        sample.numbers[k] =
            here.gate_numbers ? here.gate_numbers[k] : here.gate->numbers.of[k].initial;
    }
    group = here.group;
  }
  return out;
}

bool Gating::looks_again(const GateSample &sample) const {
  const Row &first = first_row(sample);
  return first.gate->looks_again && first.gate->looks_again(step_of(first));
}

Sums Gating::sums_of(const GateSample &sample, double *probed) const {
  std::fill(probed, probed + kProbeSums, 0.0);
  Sums sums = row(sample.first).last.sums_of(row(sample.first).numel);
  double magnitudes = 0, squares = 0;
  sums.numel = 0;
  for (size_t a = sample.first; a < sample.last; ++a) {
    const Row &here = row(a);
    const auto numel = static_cast<double>(here.numel);
    sums.numel += numel;
    magnitudes += here.last.mean_abs_gradient * numel;
    squares += here.last.unscaled_rms * here.last.unscaled_rms * numel;
    for (int k = 0; k < kProbeSums; ++k) probed[k] += here.last.probed[k];
    for (const BlockLook &look : here.looks) sums.looked += look.ratio;
  }
  sums.probed = probed;
  if (sample.last == sample.first + 1) return sums; // one tensor's are known to the bit
  sums.mean_abs_gradient = magnitudes / sums.numel;
  sums.unscaled_rms = std::sqrt(squares / sums.numel);
  return sums;
}

void Gating::keep(const GateSample &sample) {
  for (size_t a = sample.first; a < sample.last; ++a)
    if (row(a).gate_numbers)
      std::copy_n(sample.numbers, row(a).gate->numbers.of.size(), row(a).gate_numbers);
}

void Gating::take_first_look(GateSample &sample) {
  double probed[kProbeSums];
  const Row &first = first_row(sample);
  first.gate->observe_first(sample.numbers, sums_of(sample, probed), step_of(first));
  for (size_t a = sample.first; a < sample.last; ++a) set(a, sample.numbers);
}

void Gating::take_exact(GateSample &sample) {
  double probed[kProbeSums];
  const Row &first = first_row(sample);
  Sums sums = sums_of(sample, probed);
  sums.unscaled_rms = sums.param_rms = NAN; // of a step that is still to come
  first.gate->observe(sample.numbers, sums, step_of(first));
  const double factor = first.gate->factor(sample.numbers, step_of(first));
  for (size_t a = sample.first; a < sample.last; ++a) {
    set(a, sample.numbers);
    scale(a, factor);
  }
  keep(sample);
}

void Gating::apply_lagged() {
  for (size_t a = 0; a < active_.size(); ++a) {
    const Row &here = row(a);
    if (!here.gate || here.exact || is_own(here)) continue;
    set(a, here.gate_numbers);
    scale(a, here.gate->factor(here.gate_numbers, step_of(here)));
  }
}

void Gating::take_lagged(GateSample &sample) {
  double probed[kProbeSums];
  const Row &first = first_row(sample);
  first.gate->observe(sample.numbers, sums_of(sample, probed), step_of(first));
  keep(sample);
}

} // namespace cosmic
