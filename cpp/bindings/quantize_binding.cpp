#include <string>

#include "bindings/register.h"
#include "bindings/tensor_reader.h"
#include "core/error.h"
#include "plan/bind.h"
#include "plan/pack.h"
#include "plan/quantize.h"

namespace py = pybind11;

namespace cosmic {

namespace {

void *output(const py::object &tensor, int code, int bits, int64_t numel, const char *what) {
  const RawTensor raw = read_raw(tensor.ptr(), what);
  if (raw.code != code || raw.bits != bits || raw.numel != numel || !raw.contiguous)
    throw Error(ErrorKind::value, std::string(what) + " must be a contiguous tensor of " +
                                      std::to_string(numel) + " elements of " +
                                      std::to_string(bits) + " bits");
  return raw.data;
}

int64_t quantize_tensor(const py::object &from, int bits, int64_t block_size,
                        const py::object &codes, const py::object &scales, int threads) {
  check_quantization(bits, block_size);
  const TensorView view = read_tensor(from.ptr(), "tensor");
  const int64_t count = view.numel();
  const Operand operand = operand_by_index(view, "tensor");
  auto *code_data = static_cast<uint8_t *>(
      output(codes, kUnsignedCode, 8, quantized_code_bytes(count, bits, block_size), "codes"));
  auto *scale_data = static_cast<float *>(
      output(scales, kFloatCode, 32, (count + block_size - 1) / block_size, "scales"));
  const py::gil_scoped_release released;
  return quantize(operand, count, bits, block_size, code_data, scale_data, threads);
}

void dequantize_tensor(const py::object &codes, const py::object &scales, int bits,
                       int64_t block_size, const py::object &to, int threads) {
  check_quantization(bits, block_size);
  const TensorView view = read_tensor(to.ptr(), "out");
  const int64_t count = view.numel();
  const Operand operand = operand_by_index(view, "out");
  const auto *code_data = static_cast<const uint8_t *>(
      output(codes, kUnsignedCode, 8, quantized_code_bytes(count, bits, block_size), "codes"));
  const auto *scale_data = static_cast<const float *>(
      output(scales, kFloatCode, 32, (count + block_size - 1) / block_size, "scales"));
  const py::gil_scoped_release released;
  dequantize(code_data, scale_data, count, bits, block_size, operand, threads);
}

int64_t pack_tensor(const py::object &from, const std::string &name, uint64_t seed,
                    const py::object &codes, const py::object &words, int threads) {
  const PlainCodec codec = plain_codec(name);
  const TensorView view = read_tensor(from.ptr(), "tensor");
  const int64_t count = view.numel();
  const Operand operand = operand_by_index(view, "tensor");
  auto *code_data = static_cast<uint8_t *>(
      output(codes, kUnsignedCode, 8, packed_code_bytes(count, codec), "codes"));
  void *word_data = output(words, codec.word_code, codec.word_bits, packed_words(count), "scales");
  const py::gil_scoped_release released;
  return pack(operand, count, codec, seed, code_data, word_data, threads);
}

void unpack_tensor(const py::object &codes, const py::object &words, const std::string &name,
                   const py::object &to, int threads) {
  const PlainCodec codec = plain_codec(name);
  const TensorView view = read_tensor(to.ptr(), "out");
  const int64_t count = view.numel();
  const Operand operand = operand_by_index(view, "out");
  const auto *code_data = static_cast<const uint8_t *>(
      output(codes, kUnsignedCode, 8, packed_code_bytes(count, codec), "codes"));
  const void *word_data =
      output(words, codec.word_code, codec.word_bits, packed_words(count), "scales");
  const py::gil_scoped_release released;
  unpack(code_data, word_data, count, codec, operand, threads);
}

// (bits, torch dtype of the scales, whether it stores numbers >= 0 only)
py::tuple plain_codec_facts(const std::string &name) {
  const PlainCodec codec = plain_codec(name);
  return py::make_tuple(codec.bits, codec.word_dtype, codec.nonnegative);
}

} // namespace

void register_quantize(py::module_ &m) {
  m.def("pack", &pack_tensor, py::arg("tensor"), py::arg("codec"), py::arg("seed"),
        py::arg("codes"), py::arg("scales"), py::arg("threads"));
  m.def("unpack", &unpack_tensor, py::arg("codes"), py::arg("scales"), py::arg("codec"),
        py::arg("out"), py::arg("threads"));
  m.def("plain_codec", &plain_codec_facts, py::arg("codec"));
  m.def("quantize", &quantize_tensor, py::arg("tensor"), py::arg("bits"), py::arg("block_size"),
        py::arg("codes"), py::arg("scales"), py::arg("threads"));
  m.def("dequantize", &dequantize_tensor, py::arg("codes"), py::arg("scales"), py::arg("bits"),
        py::arg("block_size"), py::arg("out"), py::arg("threads"));
  m.def(
      "quantized_code_bytes",
      [](int64_t numel, int bits, int64_t block_size) {
        check_quantization(bits, block_size);
        return quantized_code_bytes(numel, bits, block_size);
      },
      py::arg("numel"), py::arg("bits"), py::arg("block_size"));
}

} // namespace cosmic
