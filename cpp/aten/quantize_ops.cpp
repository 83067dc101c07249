// The operators of plain block-wise quantization.
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <string>

#include "aten/ops.h"
#include "aten/tensor_reader.h"
#include "core/error.h"
#include "plan/bind.h"
#include "plan/quantize.h"

namespace cosmic {

namespace {

using torch::headeronly::ScalarType;

// The bits as the core counts them, checked: no large number may become 4 or 8 on the way.
int checked_bits(int64_t bits, int64_t block_size) {
  const int width = static_cast<int>(std::clamp<int64_t>(bits, 0, 1000));
  check_quantization(width, block_size);
  return width;
}

int64_t blocks_of(int64_t count, int64_t block_size) {
  return (count + block_size - 1) / block_size;
}

// Such as "1, 2": where the element with this position in index order is.
std::string index_text(const TensorView &view, int64_t position) {
  std::string text;
  int64_t inside = view.numel(); // elements under one index of the dimensions so far
  for (int d = 0; d < view.ndim; ++d) {
    inside /= view.sizes[d];
    if (d) text += ", ";
    text += std::to_string(position / inside);
    position %= inside;
  }
  return text;
}

int64_t checked_numel(const std::vector<int64_t> &size) {
  int64_t numel = 1;
  for (const int64_t extent : size)
    if (extent < 0 || __builtin_mul_overflow(numel, extent, &numel))
      throw Error(ErrorKind::value, "size holds " + std::to_string(extent) +
                                        "; expected the shape of a tensor that fits in memory");
  return numel;
}

int torch_threads() { return static_cast<int>(torch::stable::get_num_threads()); }

} // namespace

std::tuple<Tensor, Tensor> quantize_op(const Tensor &x, int64_t bits, int64_t block_size) {
  const int width = checked_bits(bits, block_size);
  const TensorView view = read_real(x, "x", Access::read);
  const Operand from = operand_by_index(view, "x");
  const int64_t count = view.numel();
  const std::vector<int64_t> bytes{quantized_code_bytes(count, width, block_size)};
  const std::vector<int64_t> blocks{blocks_of(count, block_size)};
  Tensor codes = torch::stable::empty(bytes, ScalarType::Byte);
  Tensor scales = torch::stable::empty(blocks, ScalarType::Float);
  const int64_t bad =
      quantize(from, count, width, block_size, static_cast<uint8_t *>(codes.mutable_data_ptr()),
               static_cast<float *>(scales.mutable_data_ptr()), torch_threads());
  if (bad >= 0)
    throw Error(ErrorKind::value,
                "x[" + index_text(view, bad) + "] is not finite; only finite values have a code");
  return std::make_tuple(codes, scales);
}

Tensor dequantize_op(const Tensor &codes, const Tensor &scales, const std::vector<int64_t> &size,
                     int64_t bits, int64_t block_size, ScalarType dtype) {
  const int width = checked_bits(bits, block_size);
  const int64_t count = checked_numel(size);
  const void *code_data = read_raw(codes, "codes", Access::read, aoti_torch_dtype_uint8(), "uint8",
                                   quantized_code_bytes(count, width, block_size));
  const void *scale_data = read_raw(scales, "scales", Access::read, aoti_torch_dtype_float32(),
                                    "float32", blocks_of(count, block_size));
  Tensor out = torch::stable::empty(size, dtype);
  const Operand to = operand_by_index(read_real(out, "the result", Access::write), "the result");
  dequantize(static_cast<const uint8_t *>(code_data), static_cast<const float *>(scale_data), count,
             width, block_size, to, torch_threads());
  return out;
}

} // namespace cosmic
