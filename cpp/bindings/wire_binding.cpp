#include <algorithm>
#include <limits>
#include <optional>
#include <string>

#include "bindings/register.h"
#include "bindings/tensor_reader.h"
#include "core/error.h"
#include "isa/dispatch.h"
#include "plan/bind.h"
#include "wire/wire.h"

namespace py = pybind11;

namespace cosmic {

namespace {

// Bytes of one tensor from `offset` of a message on.
uint8_t *message_at(const py::object &tensor, int64_t offset, int64_t bytes, int64_t ranks) {
  const RawTensor raw = read_raw(tensor.ptr(), "message");
  if (raw.code != kUnsignedCode || raw.bits != 8 || !raw.contiguous || raw.numel % ranks != 0)
    throw Error(ErrorKind::value, "message must be one contiguous tensor of uint8 for " +
                                      std::to_string(ranks) + " ranks");
  if (offset < 0 || offset + bytes > raw.numel / ranks)
    throw Error(ErrorKind::value, "a message of " + std::to_string(raw.numel / ranks) +
                                      " bytes has no " + std::to_string(bytes) + " from byte " +
                                      std::to_string(offset) + " on");
  return static_cast<uint8_t *>(raw.data) + offset;
}

Operand read_residual(const py::object &tensor, int64_t count) {
  const TensorView view = read_tensor(tensor.ptr(), "residual");
  const Operand operand = operand_by_index(view, "residual");
  const bool fits = view.dtype == DType::f32 || view.dtype == DType::bf16;
  if (!fits || view.numel() != count || !operand.walk.contiguous())
    throw Error(ErrorKind::value, "residual must be one run of " + std::to_string(count) +
                                      " numbers in float32 or bfloat16");
  return operand;
}

const Kernels &named_kernels(const std::string &isa) {
  return isa.empty() ? chosen_kernels() : kernels_for(isa);
}

void encode_gradient(const py::object &gradient, const py::object &residual, double decay,
                     const py::object &message, int64_t offset, const std::string &codec,
                     bool stochastic, uint64_t seed, int64_t step, uint32_t index, int rank,
                     int threads, const std::string &isa) {
  const WireFormat format = wire_format(codec);
  const Kernels &kernels = named_kernels(isa);
  const TensorView view = read_tensor(gradient.ptr(), "gradient");
  const Operand operand = operand_by_index(view, "gradient");
  const int64_t count = view.numel();
  std::optional<Operand> kept;
  if (!residual.is_none()) kept = read_residual(residual, count);
  uint8_t *bytes = message_at(message, offset, wire_bytes(count, format), 1);
  const py::gil_scoped_release released;
  wire_encode(kernels, operand, kept ? &*kept : nullptr, decay, count, format, stochastic,
              {seed, step, index, rank}, bytes, std::max(threads, 1));
}

void decode_mean(const py::object &messages, int ranks, int64_t offset, const std::string &codec,
                 const py::object &out, int threads, const std::string &isa) {
  const WireFormat format = wire_format(codec);
  const Kernels &kernels = named_kernels(isa);
  if (ranks < 1) throw Error(ErrorKind::value, "ranks must be 1 or more");
  const TensorView view = read_tensor(out.ptr(), "out");
  const Operand operand = operand_by_index(view, "out");
  const int64_t count = view.numel();
  const uint8_t *bytes = message_at(messages, offset, wire_bytes(count, format), ranks);
  const int64_t stride = read_raw(messages.ptr(), "message").numel / ranks;
  const py::gil_scoped_release released;
  wire_decode(kernels, bytes, stride, ranks, count, format, operand, std::max(threads, 1));
}

} // namespace

void register_wire(py::module_ &m) {
  m.def(
      "wire_bytes",
      [](int64_t count, const std::string &codec) { return wire_bytes(count, wire_format(codec)); },
      py::arg("numel"), py::arg("codec"));
  m.def("wire_encode", &encode_gradient, py::arg("gradient"), py::arg("residual"), py::arg("decay"),
        py::arg("message"), py::arg("offset"), py::arg("codec"), py::arg("stochastic"),
        py::arg("seed"), py::arg("step"), py::arg("index"), py::arg("rank"), py::arg("threads"),
        py::arg("isa") = "");
  m.def("wire_decode", &decode_mean, py::arg("messages"), py::arg("ranks"), py::arg("offset"),
        py::arg("codec"), py::arg("out"), py::arg("threads"), py::arg("isa") = "");
}

} // namespace cosmic
