// Sums of a step over all shards of a tensor, which other processes have.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

namespace cosmic {

// Which of the numbers that are exchanged are whose.
struct ExchangedRow {
  size_t row; // of the plan
  size_t count;
};

// Adds to each number those of the other shards of its row, in the order of the processes.
using ExchangeSums = std::function<void(double *sums, const std::vector<ExchangedRow> &rows)>;

// What is to be summed over shards at one point of a step: all of it in one go, in the order in
// which it was added, which is the same in every process.
class SumExchange {
public:
  // Numbers of a row, which stay where they are until `run` has changed them.
  void add(size_t row, double *numbers, size_t count);
  void run(const ExchangeSums &exchange);

private:
  std::vector<ExchangedRow> rows_;
  std::vector<double *> homes_;
};

} // namespace cosmic
