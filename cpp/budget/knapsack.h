// Which rung each tensor gets: the multiple-choice knapsack problem. Choose one option an item so
// that the prices stay within a budget and the worths add up to the most (Sinha & Zoltners,
// Operations Research 27(3), 1979).
#pragma once

#include <cstdint>
#include <vector>

namespace cosmic {

struct Option {
  int64_t price = 0; // bytes
  double worth = 0;
};

// The chosen option of each item. Every item starts on its first option, which must be its cheapest
// and which the budget must hold. Then, always the most worth per byte first, items step up the
// convex hull (worth over price) of the options that what is left can buy; an item whose next step
// is too dear goes on with a smaller one. Until the first such item the worth is the best that any
// allocation of as many bytes could have, and in all it is at most one step short of the best. Ties
// go to the item that comes first, and equal input gives equal output.
std::vector<int64_t> solve_knapsack(const std::vector<std::vector<Option>> &items, int64_t budget);

} // namespace cosmic
