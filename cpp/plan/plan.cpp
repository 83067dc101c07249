#include "plan/plan.h"

#include <algorithm>
#include <cmath>
#include <iterator>

#if defined(_OPENMP)
#include <omp.h>
#endif

#include "isa/float_environment.h"
#include "plan/coefficients.h"
#include "plan/work.h"

namespace cosmic {

namespace {

// Below this, waking a second thread costs more than it brings.
constexpr int64_t kElementsPerThread = 8192;

} // namespace

void Plan::partition(size_t first, size_t last) {
  active_.clear();
  first_item_.assign(1, 0);
  first_element_.assign(1, 0);
  first_shared_.assign(1, 0);
  for (size_t r = first; r < last; ++r) {
    rows[r].last = Statistics{};
    rows[r].exchanges = exchange && rows[r].shard;
    rows[r].summed = rows[r].numel;
    rows[r].measuring = nullptr; // where the step before ended in an exchange that failed
    if (!rows[r].active || (rows[r].numel == 0 && !rows[r].exchanges)) continue;
    const int64_t share = rows[r].item_blocks();
    const int64_t items = (rows[r].blocks() + share - 1) / share;
    active_.push_back(static_cast<int>(r));
    first_item_.push_back(first_item_.back() + items);
    const int64_t elements = rows[r].numel > 0 ? rows[r].place.lead + rows[r].numel : 0;
    first_element_.push_back(first_element_.back() + elements);
    rows[r].by_row = gating().by_row(rows[r]);
    const bool alone = rows[r].whole || rows[r].by_row;
    first_shared_.push_back(first_shared_.back() + (alone ? 0 : elements));
  }
  item_sums_.resize(static_cast<size_t>(first_item_.back()));
}

// A thread owns the contiguous items that begin in its share of the elements.
template <class Work>
void Plan::for_each_item(int threads, const std::vector<int64_t> &elements, Work work) {
  const int64_t all = elements.back();
  threads =
      static_cast<int>(std::clamp<int64_t>(all / kElementsPerThread, 1, std::max(threads, 1)));
  const auto share = [&](int64_t first, int64_t last) {
    const DefaultFloatEnvironment environment;
    auto a = static_cast<size_t>(std::upper_bound(elements.begin(), elements.end(), first) -
                                 elements.begin() - 1);
    for (; a < active_.size() && elements[a] < last; ++a) {
      if (elements[a + 1] == elements[a]) continue;
      const int64_t items = first_item_[a + 1] - first_item_[a];
      const int64_t item_elements = rows[static_cast<size_t>(active_[a])].item_blocks() * kBlock;
      // the first item that begins at or after `first`, and the first at or after `last`
      const auto begins_at = [&](int64_t element) {
        const int64_t inside = element - elements[a];
        return std::clamp<int64_t>((inside + item_elements - 1) / item_elements, 0, items);
      };
      for (int64_t i = begins_at(first); i < begins_at(last); ++i) work(a, i);
    }
  };
#if defined(_OPENMP)
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    const int64_t n = omp_get_num_threads(), k = omp_get_thread_num();
    share(all / n * k + std::min(k, all % n), all / n * (k + 1) + std::min(k + 1, all % n));
  }
#else
  share(0, all);
#endif
}

void Plan::prepare(int64_t steps) {
  coefficients_.clear();
  matrices_.clear();
  memories.resize(groups.size());
  Gating gates = gating();
  gates.find_newcomers();
  const Row *before = nullptr;
  for (size_t a = 0; a < active_.size(); ++a) {
    Row &row = rows[static_cast<size_t>(active_[a])];
    const Group &group = groups[static_cast<size_t>(row.group)];
    row.last.gate = gates.own_factor(row);
    row.stochastic_rounding = group.stochastic_rounding && row.param.dtype == DType::bf16;
    if (row.matrix) {
      row.matrix->share(row.exchanges);
      matrices_.push_back(row.matrix.get());
    }
    if (before && shares_coefficients(*before, row))
      coefficients_.push_back(with_random_key(coefficients_.back(), row, seed, steps));
    else
      coefficients_.push_back(coefficients_for(row, group, row.last.gate, seed, steps));
    if (row.asks_for_update()) // coefficients without gates, which those of most rows are
      row.last.rule_scale = row.last.gate == 1
                                ? coefficients_.back().update_scale
                                : coefficients_for(row, group, 1.0, seed, steps).update_scale;
    gates.set_own(a);
    before = &row;
  }
}

template <class Visit> void Plan::for_each_matrix(int threads, Visit visit) {
  const auto count = static_cast<int64_t>(matrices_.size());
#pragma omp parallel for schedule(dynamic) num_threads(std::max(threads, 1)) if (count > 1)
  for (int64_t k = 0; k < count; ++k) {
    const DefaultFloatEnvironment environment;
    visit(*matrices_[static_cast<size_t>(k)]);
  }
}

void Plan::step_item(const Kernels &kernels, size_t a, int64_t item) {
  const Row &row = rows[static_cast<size_t>(active_[a])];
  const int64_t first = item * row.item_blocks();
  const int64_t last = std::min(first + row.item_blocks(), row.blocks());
  LaneSums sums;
  if (row.matrix) {
    MatrixSums matrix = row.matrix->open(item);
    step_blocks(row, kernels, coefficients_[a], first, last, sums, &matrix);
    row.matrix->close(item, matrix);
  } else {
    step_blocks(row, kernels, coefficients_[a], first, last, sums, nullptr);
  }
  item_sums_[static_cast<size_t>(first_item_[a] + item)] = ItemSums(sums);
}

void Plan::measure_item(const Kernels &kernels, size_t a, int64_t item) {
  Row &row = rows[static_cast<size_t>(active_[a])];
  if (!row.measuring) return;
  const int64_t first = item * row.item_blocks();
  const int64_t last = std::min(first + row.item_blocks(), row.blocks());
  LaneSums sums;
  MatrixSums matrix;
  if (row.matrix) matrix = row.matrix->open(item);
  measure_blocks(row, kernels, coefficients_[a], first, last, sums, row.matrix ? &matrix : nullptr);
  item_sums_[static_cast<size_t>(first_item_[a] + item)] = ItemSums(sums);
}

void Plan::measure(const Kernels &kernels, int threads) {
  const auto is_measured = [this](int r) { return rows[static_cast<size_t>(r)].measuring; };
  if (std::none_of(active_.begin(), active_.end(), is_measured)) return;
  for_each_item(threads, first_element_,
                [&](size_t a, int64_t item) { measure_item(kernels, a, item); });
  reduce_rows(Reduced::measured);
}

void Plan::look_ahead(const Kernels &kernels, int threads) {
  const auto row_at = [this](size_t a) -> Row & { return rows[static_cast<size_t>(active_[a])]; };
  const auto looks = [this](int r) { return rows[static_cast<size_t>(r)].looks_ahead(); };
  if (std::none_of(active_.begin(), active_.end(), looks)) return;
  for_each_item(threads, first_element_, [&](size_t a, int64_t item) {
    const Row &row = row_at(a);
    if (!row.looks_ahead()) return;
    const int64_t first = item * row.item_blocks();
    const int64_t last = std::min(first + row.item_blocks(), row.blocks());
    MatrixSums sums = row.matrix->open(item);
    add_up_second(row, kernels, coefficients_[a], first, last, sums);
    row.matrix->close(item, sums);
  });
  for (size_t a = 0; a < active_.size(); ++a)
    if (row_at(a).looks_ahead()) row_at(a).matrix->add_up();
  SumExchange exchanged;
  add_matrices(exchanged, true);
  exchanged.run(exchange);
  for (size_t a = 0; a < active_.size(); ++a)
    if (row_at(a).looks_ahead()) {
      row_at(a).matrix->look_ahead();
      coefficients_[a].beta2 = 1; // what is read from now on has this step in it
      coefficients_[a].gradient2 = 0;
    }
}

void Plan::measure_codecs(const Kernels &kernels, int threads) {
  const auto measured = [this](size_t a) -> Row * {
    Row &row = rows[static_cast<size_t>(active_[a])];
    return row.m_codec && row.m_codec->measured ? &row : nullptr;
  };
  for (size_t a = 0; a < active_.size(); ++a)
    if (Row *row = measured(a)) row->measuring = &row->codec_pass;
  measure(kernels, threads);
  for (size_t a = 0; a < active_.size(); ++a)
    if (Row *row = measured(a)) {
      row->m_codec->measure(coefficients_[a], row->last.probed);
      row->measuring = nullptr;
    }
}

void Plan::mark(const std::vector<const GateSample *> &samples, bool first_look) {
  const Gating gates = gating();
  for (const GateSample *sample : samples)
    for (size_t a = sample->first; a < sample->last; ++a) {
      if (!gates.is_measured(*sample, a)) continue;
      Row &row = rows[static_cast<size_t>(active_[a])];
      row.measuring = &row.gate_pass;
      coefficients_[a].first_look = first_look;
      if (sample->gate->looks_again) row.looks.resize(static_cast<size_t>(row.blocks()));
    }
}

void Plan::measure_samples(const std::vector<const GateSample *> &samples, bool first_look,
                           const Kernels &kernels, int threads) {
  mark(samples, first_look);
  measure(kernels, threads);
  for (size_t a = 0; a < active_.size(); ++a) {
    rows[static_cast<size_t>(active_[a])].measuring = nullptr;
    coefficients_[a].first_look = false;
  }
}

bool Plan::refused(const GateSample &sample) const {
  if (!sample.gate->refuses_nonfinite) return false;
  const auto is_bad = [this](int r) { return rows[static_cast<size_t>(r)].last.nonfinite > 0; };
  const auto first = active_.begin();
  return std::any_of(first + static_cast<std::ptrdiff_t>(sample.first),
                     first + static_cast<std::ptrdiff_t>(sample.last), is_bad);
}

// In up to three passes: all samples, those that look again, those whose update others shape.
bool Plan::measure_gates(const Kernels &kernels, int threads) {
  Gating gates = gating();
  std::vector<GateSample> samples = gates.samples(true);
  if (samples.empty()) return true;
  std::vector<const GateSample *> all, again, after;
  for (const GateSample &sample : samples) all.push_back(&sample);
  measure_samples(all, true, kernels, threads);
  if (std::any_of(samples.begin(), samples.end(),
                  [this](const GateSample &sample) { return refused(sample); }))
    return false;
  for (GateSample &sample : samples)
    if (gates.looks_again(sample)) {
      gates.take_first_look(sample);
      again.push_back(&sample);
    } else if (gates.waits(sample)) {
      after.push_back(&sample);
    } else {
      gates.take_exact(sample);
    }
  if (!again.empty()) measure_samples(again, false, kernels, threads);
  for (GateSample &sample : samples)
    if (gates.looks_again(sample)) gates.take_exact(sample);
  if (!after.empty()) measure_samples(after, true, kernels, threads);
  for (GateSample &sample : samples)
    if (gates.waits(sample)) gates.take_exact(sample);
  return true;
}

bool Plan::step(int threads, int64_t steps) { return step_range(0, rows.size(), threads, steps); }

void Plan::step_rows(size_t first, size_t last, int threads, int64_t steps) {
  step_range(first, last, threads, steps);
}

void Plan::inspect(int threads) { inspect_rows(0, rows.size(), threads); }

bool Plan::step_range(size_t first, size_t last, int threads, int64_t steps) {
  const DefaultFloatEnvironment environment;
  const Kernels &kernels = kernels_in_use();
  partition(first, last);
  prepare(steps);
  const WholeRows whole = whole_rows(threads); // whose memory may be refused: nothing has changed
  for_each_matrix(threads, [](MatrixMoment &matrix) { matrix.prepare(); });
  look_ahead(kernels, threads);
  measure_codecs(kernels, threads);
  if (!measure_gates(kernels, threads)) return false;
  gating().apply_lagged();
  for_each_item(threads, first_shared_,
                [&](size_t a, int64_t item) { step_item(kernels, a, item); });
  step_whole_rows(whole, kernels, threads);
  step_rows_by_row(kernels, threads);
  for_each_matrix(threads, [](MatrixMoment &matrix) { matrix.add_up(); });
  reduce_rows(Reduced::stepped);
  for_each_matrix(threads, [](MatrixMoment &matrix) { matrix.finish(); });
  for (size_t a = 0; a < active_.size(); ++a) {
    Row &row = rows[static_cast<size_t>(active_[a])];
    row.last.update_rms = row.last.unscaled_rms * coefficients_[a].update_scale;
  }
  Gating gates = gating();
  for (GateSample &sample : gates.samples(false)) gates.take_lagged(sample);
  const Coefficients empty; // of a tensor without elements
  for (size_t r = first, a = 0; r < last; ++r) {
    if (!rows[r].active) continue;
    const bool stepped = a < active_.size() && static_cast<size_t>(active_[a]) == r;
    finish_step(rows[r], groups[static_cast<size_t>(rows[r].group)],
                stepped ? coefficients_[a++] : empty);
  }
  return true;
}

void Plan::inspect_rows(size_t first, size_t last, int threads) {
  const Kernels &kernels = kernels_in_use();
  partition(first, last);
  for_each_item(threads, first_element_, [&](size_t a, int64_t item) {
    const Row &row = rows[static_cast<size_t>(active_[a])];
    const int64_t begin = item * row.item_blocks();
    LaneSums sums;
    inspect_blocks(row, kernels, begin, std::min(begin + row.item_blocks(), row.blocks()), sums);
    item_sums_[static_cast<size_t>(first_item_[a] + item)] = ItemSums(sums);
  });
  reduce_rows(Reduced::inspected);
}

} // namespace cosmic
