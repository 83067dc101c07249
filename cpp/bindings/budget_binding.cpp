// The allocator's arithmetic.
#include <pybind11/stl.h>

#include <cmath>
#include <string>
#include <vector>

#include "bindings/register.h"
#include "budget/knapsack.h"
#include "core/error.h"

namespace py = pybind11;

namespace cosmic {

namespace {

using Prices = std::vector<std::vector<int64_t>>;
using Worths = std::vector<std::vector<double>>;

std::vector<Option> options_of(const std::vector<int64_t> &prices,
                               const std::vector<double> &worths, size_t item) {
  const auto fail = [&](const char *what) {
    throw Error(ErrorKind::value, "item " + std::to_string(item) + " " + what);
  };
  if (prices.empty() || prices.size() != worths.size())
    fail("needs one worth for each of its prices, at least one");
  std::vector<Option> out;
  for (size_t k = 0; k < prices.size(); ++k) {
    if (!std::isfinite(worths[k])) fail("has a worth that is not finite");
    if (prices[k] < prices[0] || prices[0] < 0) fail("must have its cheapest option first");
    out.push_back({prices[k], worths[k]});
  }
  return out;
}

std::vector<int64_t> knapsack(const Prices &prices, const Worths &worths, int64_t budget) {
  if (prices.size() != worths.size())
    throw Error(ErrorKind::value, "prices and worths must have as many items");
  std::vector<std::vector<Option>> items;
  int64_t least = 0;
  for (size_t i = 0; i < prices.size(); ++i) {
    items.push_back(options_of(prices[i], worths[i], i));
    least += prices[i][0];
  }
  if (least > budget)
    throw Error(ErrorKind::value, "the cheapest options cost " + std::to_string(least) +
                                      ", the budget is " + std::to_string(budget));
  return solve_knapsack(items, budget);
}

} // namespace

void register_budget(py::module_ &m) {
  m.def("solve_knapsack", &knapsack, py::arg("prices"), py::arg("worths"), py::arg("budget"));
}

} // namespace cosmic
