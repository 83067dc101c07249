// What a pass over a plan's rows has added up: of a work item's lanes, of a row's items, and of all
// shards of a tensor.
#include <algorithm>
#include <cmath>
#include <iterator>

#include "plan/plan.h"

namespace cosmic {

// Lane after lane, whatever else is added: small tensors feel every chain of additions, so those
// of zeros alone are left out, and those that are there do not wait for each other.
Plan::ItemSums::ItemSums(const LaneSums &lanes) : nonfinite(lanes.nonfinite) {
  double g = 0, u = 0;
  for (int k = 0; k < kLanes; ++k) {
    g += lanes.abs_gradient[k];
    u += lanes.square_update[k];
  }
  abs_gradient = g;
  square_update = u;
  if (!lanes.more) return;
  for (int k = 0; k < kLanes; ++k) {
    encoded += lanes.encoded[k];
    square_param += lanes.square_param[k];
    for (int s = 0; s < kProbeSums; ++s) probed[s] += lanes.probed[s][k];
  }
}

void Plan::ItemSums::add(const ItemSums &other) {
  abs_gradient += other.abs_gradient;
  square_update += other.square_update;
  square_param += other.square_param;
  for (int k = 0; k < kProbeSums; ++k) probed[k] += other.probed[k];
  encoded += other.encoded;
  nonfinite += other.nonfinite;
}

void Plan::RowSums::lay_out() {
  numbers = {sums.abs_gradient,
             sums.square_update,
             sums.square_param,
             sums.encoded,
             looked,
             static_cast<double>(sums.nonfinite)};
  numbers.insert(numbers.end(), std::begin(sums.probed), std::end(sums.probed));
}

void Plan::RowSums::take_back() {
  sums.abs_gradient = numbers[0];
  sums.square_update = numbers[1];
  sums.square_param = numbers[2];
  sums.encoded = numbers[3];
  looked = numbers[4];
  sums.nonfinite = static_cast<int64_t>(numbers[5]);
  std::copy(numbers.begin() + 6, numbers.end(), std::begin(sums.probed));
}

Plan::ItemSums Plan::add_up(size_t a) const {
  ItemSums sums;
  for (int64_t i = first_item_[a]; i < first_item_[a + 1]; ++i)
    sums.add(item_sums_[static_cast<size_t>(i)]);
  return sums;
}

void Plan::reduce_rows(Reduced which) {
  const auto counts = [&](const Row &row) { return which != Reduced::measured || row.measuring; };
  std::vector<RowSums> shared(which == Reduced::inspected || !exchange ? 0 : active_.size());
  SumExchange exchanged;
  if (which == Reduced::stepped) add_matrices(exchanged, false);
  for (size_t a = 0; a < shared.size(); ++a) {
    const auto r = static_cast<size_t>(active_[a]);
    if (!counts(rows[r]) || !rows[r].exchanges) continue;
    shared[a].sums = add_up(a);
    for (const BlockLook &look : rows[r].looks) shared[a].looked += look.ratio;
    shared[a].lay_out();
    exchanged.add(r, shared[a].numbers.data(), shared[a].numbers.size());
  }
  exchanged.run(exchange);
  for (size_t a = 0; a < active_.size(); ++a) {
    Row &row = rows[static_cast<size_t>(active_[a])];
    if (!counts(row)) continue;
    if (shared.empty() || !row.exchanges) {
      keep_sums(row, add_up(a), row.numel);
    } else {
      shared[a].take_back();
      keep_sums(row, shared[a].sums, row.shard.numel);
      row.last.looked = shared[a].looked;
    }
  }
}

void Plan::keep_sums(Row &row, const ItemSums &sums, int64_t elements) {
  const auto n = static_cast<double>(std::max<int64_t>(elements, 1)); // what is here may be nothing
  row.summed = elements;
  row.last.mean_abs_gradient = sums.abs_gradient / n;
  row.last.unscaled_rms = std::sqrt(sums.square_update / n);
  row.last.param_rms = std::sqrt(sums.square_param / n);
  std::copy(std::begin(sums.probed), std::end(sums.probed), row.last.probed);
  row.last.encoded = sums.encoded;
  row.last.nonfinite = sums.nonfinite;
}

void Plan::add_matrices(SumExchange &exchanged, bool ahead) {
  for (const int r : active_) {
    const Row &row = rows[static_cast<size_t>(r)];
    if (!row.matrix || (ahead && !row.looks_ahead())) continue;
    const MatrixMoment::Totals totals = row.matrix->shared();
    exchanged.add(static_cast<size_t>(r), totals.numbers, static_cast<size_t>(totals.count));
  }
}

} // namespace cosmic
