// From tensors, as a door has read them, to a row of the plan: the checks that every door makes.
#pragma once

#include <string>

#include "plan/row.h"

namespace cosmic {

const char *dtype_name(DType dtype);

// Such as "(3, 4)".
std::string sizes_text(const TensorView &view);

// How a codec that keeps one number an element stores it.
DType codec_dtype(const CodecPart &codec);

// Makes `param` the row's parameter; `row.name` names it in errors. Throws Error if two indices
// reach the same element. Returns the order in which the row's tensors are walked.
WalkOrder bind_param(Row &row, const TensorView &param);

// Throws Error if a gradient's shape or dtype does not go with its parameter, whose row this is.
void check_gradient(const Row &row, const TensorView &gradient, const TensorView &param);

// Makes `gradient` the row's gradient. Throws Error if its shape or dtype does not go with `param`.
void bind_gradient(Row &row, const TensorView &gradient, const TensorView &param,
                   const WalkOrder &order);

// The memory of a slot. Throws Error unless it has the codec's dtype, the parameter's shape, and
// lies in one run of memory along `order`; `what` names the slot.
void *bind_slot(const TensorView &slot, const CodecPart &codec, const std::string &what,
                const TensorView &param, const WalkOrder &order);

// A tensor whose elements are walked in the order of their indices, whatever its layout: what
// quantization reads and writes. Throws Error for float64; `what` names the tensor.
Operand operand_by_index(const TensorView &view, const std::string &what);

} // namespace cosmic
