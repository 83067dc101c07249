// Whether tensors that are written share memory.
#pragma once

#include <string>
#include <vector>

#include "core/strided.h"

namespace cosmic {

struct NamedSpan {
  const std::string *name;
  const TensorView *view;
  bool dense;
};

// Throws Error that names two tensors which share an element. Views whose ranges interleave
// without a common element, such as the columns of one matrix, are distinct.
void check_distinct(const std::vector<NamedSpan> &spans);

} // namespace cosmic
