#include "plan/bind.h"

#include "core/error.h"

namespace cosmic {

const char *dtype_name(DType dtype) {
  constexpr const char *kNames[] = {"float32", "bfloat16", "float16", "float64"};
  return kNames[static_cast<int>(dtype)];
}

std::string sizes_text(const TensorView &view) {
  std::string text = "(";
  for (int d = 0; d < view.ndim; ++d) text += (d ? ", " : "") + std::to_string(view.sizes[d]);
  return text + ")";
}

DType codec_dtype(const CodecPart &codec) {
  const PlaneOf &plane = (codec.first.empty() ? codec.second : codec.first)[0];
  if (plane.bits == 16) return plane.code == dlpack::kBfloat ? DType::bf16 : DType::f16;
  return plane.bits == 64 ? DType::f64 : DType::f32;
}

WalkOrder bind_param(Row &row, const TensorView &param) {
  const WalkOrder order = walk_order(param);
  if (order.overlaps)
    throw Error(ErrorKind::value, row.name + " overlaps itself (an expanded or overlapping view); "
                                             "COSMIC steps parameters whose elements are distinct");
  row.numel = param.numel();
  row.param = {param.data, param.dtype, walk_along(param, order)};
  if (param.ndim > 1 && row.numel > 0) {
    row.rows.count = param.sizes[0];
    int at = order.ndim; // dimensions of one element may be missing
    while (at > 0 && order.dims[at - 1] != 0) row.rows.run *= param.sizes[order.dims[--at]];
    if (at == 0) row.rows = {1, row.numel};
  }
  return order;
}

void check_gradient(const Row &row, const TensorView &gradient, const TensorView &param) {
  if (!gradient.same_sizes(param))
    throw Error(ErrorKind::value, "gradient of " + row.name + " has shape " + sizes_text(gradient) +
                                      ", its parameter " + sizes_text(param));
  if ((gradient.dtype == DType::f64) != row.is_f64())
    throw Error(ErrorKind::tensor, "gradient of " + row.name + " is " + dtype_name(gradient.dtype) +
                                       " and its parameter " + dtype_name(param.dtype) +
                                       "; float64 goes with float64 only: cast one of them");
}

void bind_gradient(Row &row, const TensorView &gradient, const TensorView &param,
                   const WalkOrder &order) {
  check_gradient(row, gradient, param);
  row.grad = {gradient.data, gradient.dtype, walk_along(gradient, order)};
}

void *bind_slot(const TensorView &slot, const CodecPart &codec, const std::string &what,
                const TensorView &param, const WalkOrder &order) {
  if (slot.dtype == codec_dtype(codec) && slot.same_sizes(param) &&
      walk_along(slot, order).contiguous())
    return slot.data;
  throw Error(ErrorKind::value, what + " is " + dtype_name(slot.dtype) + " of shape " +
                                    sizes_text(slot) + "; its parameter's rung needs codec " +
                                    codec.name + " of shape " + sizes_text(param) +
                                    ", laid out in memory as the parameter");
}

Operand operand_by_index(const TensorView &view, const std::string &what) {
  if (view.dtype == DType::f64)
    throw Error(ErrorKind::tensor,
                what + " is float64; expected float32, bfloat16 or float16: cast it first");
  WalkOrder order;
  for (int d = 0; d < view.ndim; ++d)
    if (view.sizes[d] != 1) order.dims[order.ndim++] = d;
  return {view.data, view.dtype, walk_along(view, order)};
}

} // namespace cosmic
