// Plain block-wise quantization of tensors, on all threads; the arithmetic is codecs/absmax.h.
#pragma once

#include <cstdint>

#include "plan/row.h"

namespace cosmic {

// Exact bytes of the codes of `count` elements: the last block is padded.
int64_t quantized_code_bytes(int64_t count, int bits, int64_t block_size);

// Throws Error unless bits is 4 or 8 and block_size a multiple of 8 from 8 to 4096.
void check_quantization(int bits, int64_t block_size);

// Quantizes a tensor of f32, bf16 or f16 in its walk order. Returns the index of the first element
// that is infinite or NaN, which has no code, or -1; the outputs mean nothing then.
int64_t quantize(const Operand &from, int64_t count, int bits, int64_t block_size, uint8_t *codes,
                 float *scales, int threads);

// The inverse, to a contiguous tensor of f32, bf16 or f16.
void dequantize(const uint8_t *codes, const float *scales, int64_t count, int bits,
                int64_t block_size, const Operand &to, int threads);

} // namespace cosmic
