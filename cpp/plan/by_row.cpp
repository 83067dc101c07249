#include "plan/by_row.h"

#include <algorithm>
#include <cmath>
#include <memory>

#include "plan/plan.h"
#include "plan/reader.h"
#include "plan/side_by_side.h"
#include "plan/work.h"

namespace cosmic {

namespace {

constexpr int64_t kChunk = kCopyBlocks * kBlock;

// Eight sums beside each other: a single chain of additions would be waited for.
template <class Real> double squares(const Real *values, int64_t count) {
  constexpr int kSums = 8;
  double sums[kSums] = {};
  const int64_t whole = count / kSums * kSums;
  for (int64_t k = 0; k < whole; k += kSums)
    for (int s = 0; s < kSums; ++s) {
      const auto x = static_cast<double>(values[k + s]);
      sums[s] += x * x;
    }
  for (int64_t k = whole; k < count; ++k) {
    const auto x = static_cast<double>(values[k]);
    sums[k - whole] += x * x;
  }
  double all = 0;
  for (const double sum : sums) all += sum;
  return all;
}

// Calls visit(row, first element, elements) for what lies in one row one after another.
template <class Visit>
void for_each_run_of_rows(const Rows &rows, int64_t first, int64_t last, Visit visit) {
  for (int64_t at = first; at < last;) {
    const int64_t end = std::min((at / rows.run + 1) * rows.run, last);
    visit(static_cast<size_t>(rows.of(at)), at, end - at);
    at = end;
  }
}

} // namespace

template <class Real> void RowGating<Real>::add_squares_of(int64_t first, int64_t last) {
  Reader<Real> param(row_, kernels_);
  for_each_run_of_rows(row_.rows, first, last, [&](size_t row, int64_t from, int64_t count) {
    for (int64_t at = from; at < from + count; at += kChunk) {
      const int64_t some = std::min(kChunk, from + count - at);
      params_[row] += squares(param.at(at, some), some);
      updates_[row] += squares(update_ + at, some);
    }
  });
}

// Rows that lie one after another are shared out; each is added up by one thread.
template <class Real> void RowGating<Real>::add_squares(int threads) {
  const auto count = static_cast<size_t>(row_.rows.count);
  params_.assign(count, 0.0);
  updates_.assign(count, 0.0);
  if (row_.rows.count * row_.rows.run != row_.numel) return add_squares_of(0, row_.numel);
  const int64_t run = row_.rows.run, together = std::max<int64_t>(1, kChunkBlocks * kBlock / run);
  for_each_side_by_side((row_.rows.count + together - 1) / together, threads, [&](int64_t share) {
    add_squares_of(share * together * run, std::min((share + 1) * together, row_.rows.count) * run);
  });
}

template <class Real> void RowGating<Real>::scale_elements(int64_t first, int64_t last,
                                                           const std::vector<double> &factors) {
  for_each_run_of_rows(row_.rows, first, last, [&](size_t row, int64_t from, int64_t count) {
    const auto factor = static_cast<Real>(factors[row]);
    for (int64_t k = from; k < from + count; ++k) update_[k] *= factor;
  });
}

template <class Real> double RowGating<Real>::scale(int threads) {
  add_squares(threads);
  const double numel = static_cast<double>(row_.numel) / static_cast<double>(row_.rows.count);
  std::vector<double> factors(params_.size());
  double before = 0, after = 0;
  for (size_t row = 0; row < factors.size(); ++row) {
    const double rms = unit_ != 0 ? std::sqrt(updates_[row] / numel) / std::fabs(unit_) : 0.0;
    factors[row] = gates_.row_factor(row_, numel, std::sqrt(params_[row] / numel), rms);
    before += updates_[row];
    after += updates_[row] * factors[row] * factors[row];
  }
  constexpr int64_t kShare = kChunkBlocks * kBlock;
  for_each_side_by_side((row_.numel + kShare - 1) / kShare, threads, [&](int64_t share) {
    scale_elements(share * kShare, std::min((share + 1) * kShare, row_.numel), factors);
  });
  return before > 0 && std::isfinite(after) ? std::sqrt(after / before) : 1.0;
}

template class RowGating<float>;
template class RowGating<double>;

// ---- the plan's rows that are stepped so
// ---------------------------------------------------------

template <class Real> void Plan::step_by_row(const Kernels &kernels, size_t a, int threads) {
  Row &row = rows[static_cast<size_t>(active_[a])];
  const Coefficients &c = coefficients_[a];
  const int64_t items = first_item_[a + 1] - first_item_[a], share = row.item_blocks();
  const int64_t blocks = row.blocks();
  const auto update = std::make_unique<Real[]>(static_cast<size_t>(blocks * kBlock)); // zeros
  const auto last_of = [&](int64_t item) { return std::min((item + 1) * share, blocks); };
  ItemSums *const sums = item_sums_.data() + first_item_[a];
  for_each_side_by_side(items, threads, [&](int64_t item) {
    LaneSums lanes;
    MatrixSums matrix;
    if (row.matrix) matrix = row.matrix->open(item);
    step_aside(row, update.get(), kernels, c, item * share, last_of(item), lanes,
               row.matrix ? &matrix : nullptr);
    if (row.matrix) row.matrix->close(item, matrix);
    sums[item] = ItemSums(lanes);
  });
  // what was moved from zero is -step u, and u times the rule's factors is what gates go by
  const double unit = row.last.rule_scale != 0 ? c.step / row.last.rule_scale : 0.0;
  const double factor = RowGating<Real>(gating(), row, kernels, update.get(), unit).scale(threads);
  for_each_side_by_side(items, threads, [&](int64_t item) {
    sums[item].square_param =
        move_blocks(row, update.get(), kernels, c, item * share, last_of(item));
  });
  gating().scale(a, factor);
}

void Plan::step_rows_by_row(const Kernels &kernels, int threads) {
  for (size_t a = 0; a < active_.size(); ++a) {
    const Row &row = rows[static_cast<size_t>(active_[a])];
    if (!row.by_row || row.whole || row.numel == 0) continue;
    if (row.is_f64())
      step_by_row<double>(kernels, a, std::max(threads, 1));
    else
      step_by_row<float>(kernels, a, std::max(threads, 1));
  }
}

} // namespace cosmic
