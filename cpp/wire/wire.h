// Gradients to the bytes that go over a wire and back, on all threads; formats are wire/format.h's.
#pragma once

#include <cstdint>
#include <string>

#include "plan/row.h"
#include "wire/format.h"

namespace cosmic {

struct Kernels;

// Throws Error for a name that is none.
WireFormat wire_format(const std::string &name);

// Exact bytes of `count` elements.
int64_t wire_bytes(int64_t count, WireFormat format);

// Where random bits come from.
struct WireCounter {
  uint64_t seed = 0;
  int64_t step = 0;
  uint32_t index = 0; // of the parameter
  int rank = 0;
};
uint32_t wire_key(const WireCounter &counter);

// Encodes a gradient of f32, bf16 or f16, and the residual that is to be added to it, a contiguous
// tensor of f32 or bf16, or null. The residual becomes `decay` of what was not sent, rounded
// stochastically in bf16; of a block that is not finite it becomes zero. A gradient that is zero
// throughout sends zeros and leaves the residual as it is: who has no gradient for a parameter may
// be one of ranks that all have none, whose sum nobody takes.
void wire_encode(const Kernels &kernels, const Operand &gradient, const Operand *residual,
                 double decay, int64_t count, WireFormat format, bool stochastic,
                 const WireCounter &counter, uint8_t *bytes, int threads);

// The mean over ranks, added up in their order. Rank r's bytes begin `stride` after those of r - 1.
void wire_decode(const Kernels &kernels, const uint8_t *bytes, int64_t stride, int ranks,
                 int64_t count, WireFormat format, const Operand &to, int threads);

} // namespace cosmic
