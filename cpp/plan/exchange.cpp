#include "plan/exchange.h"

#include <algorithm>

namespace cosmic {

void SumExchange::add(size_t row, double *numbers, size_t count) {
  if (!count) return;
  rows_.push_back({row, count});
  homes_.push_back(numbers);
}

void SumExchange::run(const ExchangeSums &exchange) {
  if (rows_.empty()) return;
  std::vector<double> sums;
  for (size_t k = 0; k < rows_.size(); ++k)
    sums.insert(sums.end(), homes_[k], homes_[k] + rows_[k].count);
  exchange(sums.data(), rows_);
  const double *from = sums.data();
  for (size_t k = 0; k < rows_.size(); from += rows_[k++].count)
    std::copy_n(from, rows_[k].count, homes_[k]);
}

} // namespace cosmic
