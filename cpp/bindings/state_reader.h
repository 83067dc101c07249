// The tensors of a parameter's state, as a rung needs them, bound to a row of the plan.
#pragma once

#include <pybind11/pybind11.h>

#include <string>

#include "plan/row.h"

namespace cosmic {

struct SlotCodecs {
  const CodecPart *m = nullptr, *m_slow = nullptr, *v = nullptr;
};

// `state` is the parameter's dict, in which the row's keys begin with `prefix`; `param` and `order`
// describe the tensor that the row steps. The row says which rule and gate keep numbers. Throws
// Error that names the entry which is missing or does not fit.
void bind_state(Row &row, const pybind11::dict &state, const std::string &prefix,
                const SlotCodecs &codecs, const TensorView &param, const WalkOrder &order);

} // namespace cosmic
