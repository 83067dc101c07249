// The operators of plain block-wise quantization.
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <optional>
#include <string>

#include "aten/ops.h"
#include "aten/tensor_reader.h"
#include "core/error.h"
#include "plan/bind.h"
#include "plan/pack.h"
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

constexpr const char *kAbsmax = "absmax";

// Throws Error unless the numbers that a call gives beside the codec are the codec's own.
void check_fits(const PlainCodec &codec, std::optional<int64_t> bits, int64_t block_size) {
  if (bits && *bits != codec.bits)
    throw Error(ErrorKind::value, "bits is " + std::to_string(*bits) + "; the codec has " +
                                      std::to_string(codec.bits) + ": leave bits out");
  if (block_size != kBlock)
    throw Error(ErrorKind::value, "block_size is " + std::to_string(block_size) +
                                      "; the codec has blocks of " + std::to_string(kBlock));
}

int32_t word_dtype(const PlainCodec &codec) {
  if (codec.word_bits == 32) return aoti_torch_dtype_int32();
  return codec.nonnegative ? aoti_torch_dtype_int16() : aoti_torch_dtype_bfloat16();
}

ScalarType word_type(const PlainCodec &codec) {
  if (codec.word_bits == 32) return ScalarType::Int;
  return codec.nonnegative ? ScalarType::Short : ScalarType::BFloat16;
}

int torch_threads() { return static_cast<int>(torch::stable::get_num_threads()); }

std::tuple<Tensor, Tensor> packed(const TensorView &view, const Operand &from,
                                  std::optional<int64_t> bits, int64_t block_size,
                                  const std::string &name, int64_t seed) {
  const PlainCodec codec = plain_codec(name);
  check_fits(codec, bits, block_size);
  const int64_t count = view.numel();
  const std::vector<int64_t> bytes{packed_code_bytes(count, codec)}, words{packed_words(count)};
  Tensor codes = torch::stable::empty(bytes, ScalarType::Byte);
  Tensor scales = torch::stable::empty(words, word_type(codec));
  const int64_t bad = pack(from, count, codec, static_cast<uint64_t>(seed),
                           static_cast<uint8_t *>(codes.mutable_data_ptr()),
                           scales.mutable_data_ptr(), torch_threads());
  if (bad >= 0)
    throw Error(ErrorKind::value,
                "x[" + index_text(view, bad) + "] has no code: codec " + name +
                    (codec.nonnegative ? " stores finite numbers >= 0" : " stores finite numbers"));
  return std::make_tuple(codes, scales);
}

Tensor unpacked(const Tensor &codes, const Tensor &scales, const std::vector<int64_t> &size,
                int64_t count, const PlainCodec &codec, ScalarType dtype) {
  const void *code_data = read_raw(codes, "codes", Access::read, aoti_torch_dtype_uint8(), "uint8",
                                   packed_code_bytes(count, codec));
  const void *words = read_raw(scales, "scales", Access::read, word_dtype(codec), codec.word_dtype,
                               packed_words(count));
  Tensor out = torch::stable::empty(size, dtype);
  const Operand to = operand_by_index(read_real(out, "the result", Access::write), "the result");
  unpack(static_cast<const uint8_t *>(code_data), words, count, codec, to, torch_threads());
  return out;
}

} // namespace

std::tuple<Tensor, Tensor> quantize_op(const Tensor &x, std::optional<int64_t> bits,
                                       int64_t block_size, const std::string &codec, int64_t seed) {
  const TensorView view = read_real(x, "x", Access::read);
  const Operand from = operand_by_index(view, "x");
  if (codec != kAbsmax) return packed(view, from, bits, block_size, codec, seed);
  const int width = checked_bits(bits.value_or(4), block_size);
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
                     int64_t bits, int64_t block_size, ScalarType dtype, const std::string &codec) {
  const int64_t count = checked_numel(size);
  if (codec != kAbsmax) {
    const PlainCodec plain = plain_codec(codec);
    check_fits(plain, bits, block_size);
    return unpacked(codes, scales, size, count, plain, dtype);
  }
  const int width = checked_bits(bits, block_size);
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
