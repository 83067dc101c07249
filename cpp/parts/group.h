// Hyper-parameters of a parameter group, as the user gives them.
#pragma once

#include <cstdint>
#include <vector>

namespace cosmic {

// Of every part, in the order of the registry: what a group has that nobody has given any.
std::vector<double> default_options();

struct Group {
  double lr = 1e-3, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0;
  bool maximize = false;
  bool stochastic_rounding = true; // of parameters in bf16
  std::vector<double> options = default_options();
};

} // namespace cosmic
