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

// Throws Error that names a copy, by its parameter, which shares an element with another one or
// with any of `others`.
void check_apart(const std::vector<NamedSpan> &copies, const std::vector<NamedSpan> &others);

} // namespace cosmic
