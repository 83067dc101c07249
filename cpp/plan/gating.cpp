#include "plan/gating.h"

#include <algorithm>
#include <cmath>

#include "parts/registry.h"

namespace cosmic {

namespace {

const RowGate *gate_in(const Row &row, const GatePart &part) {
  for (const RowGate &gate : row.gates)
    if (gate.part == &part) return &gate;
  return nullptr;
}

// Whether a gate knows nothing of the row yet.
bool starts(const RowGate &gate) { return gate.part->starts && gate.part->starts(gate.numbers); }

// Whether the step before says little of how long this one's update is: without momentum it is this
// gradient's own. That of a matrix as a whole has one length.
bool is_fresh(const Row &row, const GatePart &gate) {
  return gate.square_update && !row.rule->first && !row.rule->matrix;
}

// Where the sums of a gate's probe are among those of its pass.
int first_sum(const Row &row, const GatePart &part, bool before) {
  int sum = 0;
  for (const RowGate &gate : row.gates) {
    if (gate.part == &part) break;
    const bool in_pass = !before || row.exact || gate.part->starts;
    if (in_pass && gate.part->probe_place) sum += kSumsOfPart;
  }
  return sum;
}

} // namespace

template <class Visit> void Gating::for_each_row(const GateSample &sample, Visit visit) const {
  for (size_t a = sample.first; a < sample.last; ++a)
    if (const RowGate *gate = gate_in(row(a), *sample.gate)) visit(a, *gate);
}

GateMemory *Gating::memory_of(const Row &row, const GatePart &gate) const {
  const auto group = static_cast<size_t>(row.group);
  return gate.remember ? memories_[group].get() : nullptr;
}

GateStep Gating::step_of(const Row &row, const GatePart &gate) const {
  const Group &group = groups_[static_cast<size_t>(row.group)];
  const double decay = 1.0 - group.lr * row.lr_scale * group.weight_decay;
  return {gate.options_in(group), memory_of(row, gate), row.exact, group.eps, decay};
}

void Gating::find_newcomers() {
  newcomers_.clear();
  for (const int r : active_) {
    const Row &here = rows_[static_cast<size_t>(r)];
    for (const RowGate &gate : here.gates)
      if (!here.exact && measures(here, gate) && looks_together(here, *gate.part))
        newcomers_.emplace_back(here.group, gate.part);
  }
}

bool Gating::is_own(const Row &row, const RowGate &gate) const {
  if (row.exact || gate.part->remember || starts(gate)) return false;
  if (by_row(row, *gate.part) || is_fresh(row, *gate.part)) return false;
  const auto same = [&](const auto &one) {
    return one.first == row.group && one.second == gate.part;
  };
  return std::none_of(newcomers_.begin(), newcomers_.end(), same);
}

double Gating::own_factor(const Row &row) const {
  double factor = 1;
  for (const RowGate &gate : row.gates)
    if (is_own(row, gate)) factor *= gate.part->factor(gate.numbers, step_of(row, *gate.part));
  return factor;
}

void Gating::set_own(size_t a) {
  for (const RowGate &gate : row(a).gates)
    if (is_own(row(a), gate)) set(a, *gate.part, gate.numbers);
}

void Gating::set(size_t a, const GatePart &gate, const double *numbers) {
  if (gate.coefficients) gate.coefficients(coefficients_[a], numbers, step_of(row(a), gate));
}

void Gating::scale(size_t a, double factor) {
  row(a).last.gate *= factor;
  coefficients_[a].update_scale *= factor;
  coefficients_[a].step *= factor;
}

// ---- samples
// -------------------------------------------------------------------------------------

bool Gating::measures(const Row &row, const RowGate &gate) const {
  if (row.rule->matrix && gate.part->square_update) return false;
  if (by_row(row, *gate.part)) return false;
  return row.exact || starts(gate) || is_fresh(row, *gate.part);
}

bool Gating::looks_together(const Row &row, const GatePart &gate) const {
  if (const GateMemory *memory = memory_of(row, gate)) return !memory->by_tensor;
  return gate.looks_together(groups_[static_cast<size_t>(row.group)]);
}

size_t Gating::end_of_group(size_t first) const {
  size_t last = first + 1;
  while (last < active_.size() && row(last).group == row(first).group) ++last;
  return last;
}

GateSample Gating::sample_of(const GatePart &gate, size_t first, size_t last) const {
  GateSample sample{&gate, first, last, memory_of(row(first), gate)};
  const double *numbers = gate_in(row(first), gate)->numbers;
  for (size_t k = 0; k < gate.numbers.of.size(); ++k)
    sample.numbers[k] = numbers ? numbers[k] : gate.numbers.of[k].initial;
  return sample;
}

void Gating::add_samples(std::vector<GateSample> &out, const GatePart &gate, size_t first,
                         size_t last, bool before) const {
  const auto has = [&](size_t a) { return gate_in(row(a), gate) != nullptr; };
  const auto counts = [&](size_t a) {
    const RowGate *const mine = gate_in(row(a), gate);
    if (!mine || before) return mine && measures(row(a), *mine);
    return !row(a).exact && !by_row(row(a), gate) && !is_fresh(row(a), gate);
  };
  if (!looks_together(row(first), gate)) {
    for (size_t a = first; a < last; ++a)
      if (counts(a)) out.push_back(sample_of(gate, a, a + 1));
    return;
  }
  bool any = false; // one that knows nothing has all of the group measured
  for (size_t a = first; a < last; ++a) any |= counts(a);
  if (!any) return;
  while (!has(first)) ++first;
  while (!has(last - 1)) --last;
  out.push_back(sample_of(gate, first, last));
}

std::vector<GateSample> Gating::samples(bool before) const {
  std::vector<GateSample> out;
  for (size_t first = 0, last = 0; first < active_.size(); first = last) {
    last = end_of_group(first);
    bool gated = false;
    for (size_t a = first; a < last; ++a) gated |= !row(a).gates.empty();
    if (!gated) continue;
    for (const GatePart *gate : all_gates())
      for (size_t a = first; a < last; ++a)
        if (gate_in(row(a), *gate)) {
          add_samples(out, *gate, first, last, before);
          break;
        }
  }
  return out;
}

bool Gating::is_measured(const GateSample &sample, size_t a) const {
  return gate_in(row(a), *sample.gate) && !(row(a).rule->matrix && sample.gate->square_update);
}

bool Gating::looks_again(const GateSample &sample) const {
  return sample.gate->looks_again && sample.gate->looks_again(step_of(sample));
}

bool Gating::waits(const GateSample &sample) const {
  if (!sample.gate->square_update) return false;
  bool shaped = false;
  for_each_row(sample, [&](size_t a, const RowGate &) {
    for (const RowGate &gate : row(a).gates)
      shaped |= gate.part->coefficients && !gate.part->looks_again && row(a).exact;
  });
  return shaped;
}

Sums Gating::sums_of(const GateSample &sample, bool before, double *probed) const {
  std::fill(probed, probed + kSumsOfPart, 0.0);
  Sums sums = row(sample.first).last.sums_of(row(sample.first).summed);
  double magnitudes = 0, squares = 0, scaled = 0, params = 0;
  sums.numel = 0;
  for_each_row(sample, [&](size_t a, const RowGate &) {
    if (before && !is_measured(sample, a)) return;
    const Row &here = row(a);
    const Sums one = here.last.sums_of(here.summed);
    sums.numel += one.numel;
    magnitudes += one.mean_abs_gradient * one.numel;
    squares += one.unscaled_rms * one.unscaled_rms * one.numel;
    scaled += one.update_rms * one.update_rms * one.numel;
    params += one.param_rms * one.param_rms * one.numel;
    const double *const first = one.probed + first_sum(here, *sample.gate, before);
    for (int k = 0; k < kSumsOfPart; ++k) probed[k] += first[k];
    if (here.exchanges)
      sums.looked += here.last.looked;
    else
      for (const BlockLook &look : here.looks) sums.looked += look.ratio;
  });
  sums.probed = probed;
  if (sample.last == sample.first + 1) return sums; // one tensor's are known to the bit
  sums.mean_abs_gradient = magnitudes / sums.numel;
  sums.unscaled_rms = std::sqrt(squares / sums.numel);
  sums.update_rms = std::sqrt(scaled / sums.numel);
  sums.param_rms = std::sqrt(params / sums.numel);
  return sums;
}

void Gating::keep(const GateSample &sample) {
  for_each_row(sample, [&](size_t, const RowGate &gate) {
    if (gate.numbers) std::copy_n(sample.numbers, sample.gate->numbers.of.size(), gate.numbers);
  });
}

// ---- what a pass or a step has added up
// ----------------------------------------------------------

void Gating::take_first_look(GateSample &sample) {
  double probed[kSumsOfPart];
  sample.gate->observe_first(sample.numbers, sums_of(sample, true, probed), step_of(sample));
  for_each_row(sample, [&](size_t a, const RowGate &) { set(a, *sample.gate, sample.numbers); });
}

void Gating::take_exact(GateSample &sample) {
  double probed[kSumsOfPart];
  const RowGate &first = *gate_in(row(sample.first), *sample.gate);
  Sums sums = sums_of(sample, true, probed);
  if (!sample.gate->square_update) sums.unscaled_rms = sums.update_rms = NAN; // still to come
  if (!sample.gate->square_param) sums.param_rms = NAN;
  if (first.observes)
    sample.gate->observe(sample.numbers, sums, step_of(sample));
  else
    std::copy_n(first.numbers, sample.gate->numbers.of.size(), sample.numbers);
  const double factor = sample.gate->factor(sample.numbers, step_of(sample));
  for_each_row(sample, [&](size_t a, const RowGate &) {
    set(a, *sample.gate, sample.numbers);
    scale(a, factor);
  });
  keep(sample);
}

bool Gating::measures_whole(const Row &row, const RowGate &gate) const {
  return gate.part->square_update && (row.exact || starts(gate)) &&
         !looks_together(row, *gate.part) && !by_row(row, *gate.part);
}

bool Gating::measures_whole(const Row &row) const {
  return std::any_of(row.gates.begin(), row.gates.end(),
                     [&](const RowGate &gate) { return measures_whole(row, gate); });
}

void Gating::take_whole(size_t a) {
  std::vector<GateSample> samples; // which are those, before one of them has been taken
  for (const RowGate &gate : row(a).gates)
    if (measures_whole(row(a), gate)) samples.push_back(sample_of(*gate.part, a, a + 1));
  for (GateSample &sample : samples) take_exact(sample);
}

bool Gating::by_row(const Row &row, const GatePart &gate) const {
  const bool has_rows = row.shard ? row.shard.has_rows : row.rows.count > 1;
  return gate.by_row && has_rows && gate.by_row(step_of(row, gate).options);
}

bool Gating::by_row(const Row &row) const {
  return std::any_of(row.gates.begin(), row.gates.end(),
                     [&](const RowGate &gate) { return by_row(row, *gate.part); });
}

double Gating::row_factor(const Row &row, double numel, double param_rms, double update_rms) const {
  Sums sums;
  sums.numel = numel;
  sums.param_rms = param_rms;
  sums.update_rms = update_rms;
  double factor = 1;
  for (const RowGate &gate : row.gates) {
    if (!by_row(row, *gate.part)) continue;
    double numbers[kMostNumbers];
    for (size_t k = 0; k < gate.part->numbers.of.size(); ++k)
      numbers[k] = gate.part->numbers.of[k].initial;
    gate.part->observe(numbers, sums, step_of(row, *gate.part));
    factor *= gate.part->factor(numbers, step_of(row, *gate.part));
  }
  return factor;
}

void Gating::apply_lagged() {
  for (size_t a = 0; a < active_.size(); ++a) {
    const Row &here = row(a);
    for (const RowGate &gate : here.gates) {
      if (here.exact || !gate.part->remember) continue;
      set(a, *gate.part, gate.numbers);
      scale(a, gate.part->factor(gate.numbers, step_of(here, *gate.part)));
    }
  }
}

void Gating::take_lagged(GateSample &sample) {
  if (!gate_in(row(sample.first), *sample.gate)->observes) return;
  double probed[kSumsOfPart];
  sample.gate->observe(sample.numbers, sums_of(sample, false, probed), step_of(sample));
  keep(sample);
}

} // namespace cosmic
