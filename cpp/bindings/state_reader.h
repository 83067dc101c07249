// The tensors of a parameter's state, as a rung needs them, bound to a row of the plan.
#pragma once

#include <pybind11/pybind11.h>

#include <string>

#include "plan/row.h"

namespace cosmic {

struct SlotCodecs {
  std::string m, m_slow, v;
};

// `state` is the parameter's dict, `gate` the name that its gate's numbers go by; `param` and
// `order` describe the parameter. Throws Error that names the entry which is missing or does not
// fit.
void bind_state(Row &row, const pybind11::dict &state, const SlotCodecs &codecs,
                const std::string &gate, const TensorView &param, const WalkOrder &order);

} // namespace cosmic
