#include "plan/coefficients.h"

#include <algorithm>
#include <cmath>

namespace cosmic {

namespace {

constexpr double kSignalDecay = 0.9;

RuleStep rule_step(const RulePart &rule, const Row &row, const Group &group, double gate) {
  return {group,
          rule.options_in(group),
          row.steps_taken(),
          row.m_start,
          row.m_slow.data[0] != nullptr,
          gate,
          group.maximize ? -1.0 : 1.0,
          group.lr * row.lr_scale};
}

} // namespace

uint32_t random_key(uint64_t seed, int64_t step, uint32_t tensor) {
  // splitmix64's finalizer over the three counters (Steele, Lea & Flood, OOPSLA 2014)
  uint64_t x = seed + 0x9e3779b97f4a7c15u * (static_cast<uint64_t>(step) + 1);
  x ^= static_cast<uint64_t>(tensor) << 32 | tensor;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return static_cast<uint32_t>((x ^ (x >> 31)) >> 32);
}

CodecStep codec_step(const Row &row, const Group &group) {
  return {group, row.m_codec->options_in(group), row.steps_taken() == row.m_start};
}

Coefficients coefficients_for(const Row &row, const Group &group, double gate, uint64_t seed,
                              int64_t steps) {
  Coefficients c;
  c.decay = 1.0 - group.lr * row.lr_scale * group.weight_decay;
  c.random_key = random_key(seed, row.step ? *row.step : steps, row.index);
  row.rule->coefficients(c, row.rule_numbers, rule_step(*row.rule, row, group, gate));
  if (row.m_codec && row.m_codec->coefficients)
    row.m_codec->coefficients(c, row.m_numbers, codec_step(row, group));
  return c;
}

bool shares_coefficients(const Row &a, const Row &b) {
  const auto has_numbers = [](const Row &row) {
    const auto is_own = [](const RowGate &gate) { return gate.numbers && !gate.part->remember; };
    return row.rule_numbers || row.m_numbers ||
           std::any_of(row.gates.begin(), row.gates.end(), is_own);
  };
  return a.group == b.group && a.lr_scale == b.lr_scale && a.rule == b.rule &&
         a.steps_taken() == b.steps_taken() && a.m_start == b.m_start &&
         !a.m_slow.data[0] == !b.m_slow.data[0] && !has_numbers(a) && !has_numbers(b);
}

Coefficients with_random_key(const Coefficients &of, const Row &row, uint64_t seed, int64_t steps) {
  Coefficients c = of;
  c.random_key = random_key(seed, row.step ? *row.step : steps, row.index);
  return c;
}

std::vector<double> started_numbers(const RulePart &rule, double mean_root, const Row &row,
                                    const Group &group) {
  std::vector<double> numbers;
  numbers.reserve(rule.numbers.of.size());
  for (const Number &number : rule.numbers.of) numbers.push_back(number.initial);
  if (rule.start) rule.start(numbers.data(), mean_root, rule_step(rule, row, group, 1.0));
  return numbers;
}

void finish_step(Row &row, const Group &group, const Coefficients &c) {
  const double x = row.last.mean_abs_gradient;
  const Sums sums = row.last.sums_of(row.summed);
  const bool counted =
      !row.rule->observe ||
      row.rule->observe(row.rule_numbers, sums, rule_step(*row.rule, row, group, 1.0));
  if (row.m_codec && row.m_codec->finish) {
    const auto *by_block = row.by_block.get();
    const Encoded state{row.m, by_block ? by_block->data() : nullptr,
                        by_block ? static_cast<int64_t>(by_block->size()) : 0};
    row.m_codec->finish(row.m_numbers, c, row.last.encoded, sums.numel, state,
                        codec_step(row, group));
  }
  if (row.signal && std::isfinite(x))
    *row.signal = *row.signal > 0 ? kSignalDecay * *row.signal + (1.0 - kSignalDecay) * x : x;
  // shards of one tensor have the same count, whatever each one's own sums are
  if (row.step && (counted || (row.shard && !row.exchanges))) ++*row.step;
}

} // namespace cosmic
