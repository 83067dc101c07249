#include "budget/knapsack.h"

#include <cstddef>
#include <limits>
#include <queue>

namespace cosmic {

namespace {

// From one option of an item up to a dearer one that is worth more.
struct Step {
  double per_byte;
  size_t item;
  size_t to;
  int64_t price;
};

// The best step first; of equal ones that of the first item.
struct Worse {
  bool operator()(const Step &a, const Step &b) const {
    return a.per_byte != b.per_byte ? a.per_byte < b.per_byte : a.item > b.item;
  }
};

class Knapsack {
public:
  Knapsack(const std::vector<std::vector<Option>> &items, int64_t budget)
      : items_(items), left_(budget), chosen_(items.size(), 0) {
    for (const std::vector<Option> &options : items) left_ -= options[0].price;
    for (size_t item = 0; item < items.size(); ++item) offer(item);
  }

  std::vector<int64_t> solve() {
    while (!steps_.empty()) {
      const Step step = steps_.top();
      steps_.pop();
      if (step.price <= left_) {
        chosen_[step.item] = static_cast<int64_t>(step.to);
        left_ -= step.price;
      }
      offer(step.item); // its next step; where one is too dear, its best that is not
    }
    return chosen_;
  }

private:
  // The steepest step up from an item's chosen option to one that what is left can buy: the first
  // edge of the convex hull of these options.
  void offer(size_t item) {
    const std::vector<Option> &options = items_[item];
    const Option &from = options[static_cast<size_t>(chosen_[item])];
    Step best{0, item, 0, 0};
    for (size_t k = 0; k < options.size(); ++k) {
      const int64_t price = options[k].price - from.price;
      if (price > left_ || !(options[k].worth > from.worth)) continue;
      const double gain = options[k].worth - from.worth;
      const double per_byte =
          price > 0 ? gain / static_cast<double>(price) : std::numeric_limits<double>::infinity();
      // of equal slopes the longer step: the shorter ones lie on its edge
      if (per_byte > best.per_byte || (per_byte == best.per_byte && price > best.price))
        best = {per_byte, item, k, price};
    }
    if (best.per_byte > 0) steps_.push(best);
  }

  const std::vector<std::vector<Option>> &items_;
  int64_t left_;
  std::vector<int64_t> chosen_;
  std::priority_queue<Step, std::vector<Step>, Worse> steps_;
};

} // namespace

std::vector<int64_t> solve_knapsack(const std::vector<std::vector<Option>> &items, int64_t budget) {
  return Knapsack(items, budget).solve();
}

} // namespace cosmic
