#include "plan/plan.h"

#include <algorithm>
#include <cmath>

#if defined(_OPENMP)
#include <omp.h>
#endif

#include "gates/snr.h"
#include "isa/float_environment.h"
#include "plan/coefficients.h"
#include "plan/work.h"

namespace cosmic {

namespace {

// Below this, waking a second thread costs more than it brings.
constexpr int64_t kElementsPerThread = 8192;

int64_t blocks_of(int64_t numel) { return (numel + kBlock - 1) / kBlock; }

double sum_lanes(const double *lanes) {
  double sum = 0;
  for (int k = 0; k < kLanes; ++k) sum += lanes[k];
  return sum;
}

} // namespace

void Plan::partition(size_t first, size_t last) {
  active_.clear();
  first_item_.assign(1, 0);
  first_element_.assign(1, 0);
  for (size_t r = first; r < last; ++r) {
    rows[r].last = Statistics{};
    if (!rows[r].active || rows[r].numel == 0) continue;
    const int64_t share = rows[r].item_blocks();
    const int64_t items = (blocks_of(rows[r].numel) + share - 1) / share;
    active_.push_back(static_cast<int>(r));
    first_item_.push_back(first_item_.back() + items);
    first_element_.push_back(first_element_.back() + rows[r].numel);
  }
  item_sums_.resize(static_cast<size_t>(first_item_.back()));
}

// A thread owns the contiguous items that begin in its share of the elements.
template <class Work> void Plan::for_each_item(int threads, Work work) {
  const int64_t elements = first_element_.back();
  threads =
      static_cast<int>(std::clamp<int64_t>(elements / kElementsPerThread, 1, std::max(threads, 1)));
  const auto share = [&](int64_t first, int64_t last) {
    const DefaultFloatEnvironment environment;
    auto a =
        static_cast<size_t>(std::upper_bound(first_element_.begin(), first_element_.end(), first) -
                            first_element_.begin() - 1);
    for (; a < active_.size() && first_element_[a] < last; ++a) {
      const int64_t items = first_item_[a + 1] - first_item_[a];
      const int64_t item_elements = rows[static_cast<size_t>(active_[a])].item_blocks() * kBlock;
      // the first item that begins at or after `first`, and the first at or after `last`
      const auto begins_at = [&](int64_t element) {
        const int64_t inside = element - first_element_[a];
        return std::clamp<int64_t>((inside + item_elements - 1) / item_elements, 0, items);
      };
      for (int64_t i = begins_at(first); i < begins_at(last); ++i) work(a, i);
    }
  };
#if defined(_OPENMP)
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    const int64_t n = omp_get_num_threads(), k = omp_get_thread_num();
    share(elements / n * k + std::min(k, elements % n),
          elements / n * (k + 1) + std::min(k + 1, elements % n));
  }
#else
  share(0, elements);
#endif
}

void Plan::reduce_rows() {
  for (size_t a = 0; a < active_.size(); ++a) {
    double abs_gradient = 0, square_update = 0;
    int64_t nonfinite = 0;
    for (int64_t i = first_item_[a]; i < first_item_[a + 1]; ++i) {
      const ItemSums &item = item_sums_[static_cast<size_t>(i)];
      abs_gradient += item.abs_gradient;
      square_update += item.square_update;
      nonfinite += item.nonfinite;
    }
    Row &row = rows[static_cast<size_t>(active_[a])];
    const auto n = static_cast<double>(row.numel);
    row.last.mean_abs_gradient = abs_gradient / n;
    row.last.unscaled_rms = std::sqrt(square_update / n);
    row.last.nonfinite = nonfinite;
  }
}

void Plan::prepare(int64_t steps) {
  coefficients_.clear();
  matrices_.clear();
  const Row *before = nullptr;
  for (const int r : active_) {
    Row &row = rows[static_cast<size_t>(r)];
    const Group &group = groups[static_cast<size_t>(row.group)];
    if (row.gate) row.last.gate = snr::factor(row.gate);
    row.stochastic_rounding = group.stochastic_rounding && row.param.dtype == DType::bf16;
    if (row.matrix) matrices_.push_back(row.matrix.get());
    if (before && shares_coefficients(*before, row))
      coefficients_.push_back(with_random_key(coefficients_.back(), row, seed, steps));
    else
      coefficients_.push_back(coefficients_for(row, group, seed, steps));
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
  const int64_t last = std::min(first + row.item_blocks(), blocks_of(row.numel));
  LaneSums sums;
  if (row.matrix) {
    MatrixSums matrix = row.matrix->open(item);
    step_blocks(row, kernels, coefficients_[a], first, last, sums, &matrix);
    row.matrix->close(item, matrix);
  } else {
    step_blocks(row, kernels, coefficients_[a], first, last, sums, nullptr);
  }
  item_sums_[static_cast<size_t>(first_item_[a] + item)] = {
      sum_lanes(sums.abs_gradient), sum_lanes(sums.square_update), sums.nonfinite};
}

void Plan::step(int threads, int64_t steps) { step_range(0, rows.size(), threads, steps); }

void Plan::step_row(size_t row, int threads, int64_t steps) {
  step_range(row, row + 1, threads, steps);
}

void Plan::inspect(int threads) { inspect_range(0, rows.size(), threads); }

void Plan::inspect_row(size_t row, int threads) { inspect_range(row, row + 1, threads); }

void Plan::step_range(size_t first, size_t last, int threads, int64_t steps) {
  const DefaultFloatEnvironment environment;
  const Kernels &kernels = chosen_kernels();
  partition(first, last);
  prepare(steps);
  for_each_matrix(threads, [](MatrixMoment &matrix) { matrix.prepare(); });
  for_each_item(threads, [&](size_t a, int64_t item) { step_item(kernels, a, item); });
  for_each_matrix(threads, [](MatrixMoment &matrix) { matrix.finish(); });
  reduce_rows();
  for (size_t a = 0; a < active_.size(); ++a) {
    Row &row = rows[static_cast<size_t>(active_[a])];
    row.last.update_rms = row.last.unscaled_rms * coefficients_[a].update_scale;
  }
  for (size_t r = first; r < last; ++r)
    if (rows[r].active) finish_step(rows[r], groups[static_cast<size_t>(rows[r].group)]);
}

void Plan::inspect_range(size_t first, size_t last, int threads) {
  const Kernels &kernels = chosen_kernels();
  partition(first, last);
  for_each_item(threads, [&](size_t a, int64_t item) {
    const Row &row = rows[static_cast<size_t>(active_[a])];
    const int64_t begin = item * row.item_blocks();
    LaneSums sums;
    inspect_blocks(row, kernels, begin, std::min(begin + row.item_blocks(), blocks_of(row.numel)),
                   sums);
    item_sums_[static_cast<size_t>(first_item_[a] + item)] = {sum_lanes(sums.abs_gradient), 0,
                                                              sums.nonfinite};
  });
  reduce_rows();
}

} // namespace cosmic
