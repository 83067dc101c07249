// Plain block-wise quantization of a tensor to signed integers of 4 or 8 bits, to nearest with
// ties to even: scale = absmax / (2^(bits-1) - 1), one unit of the last place less where the top
// level would lie above absmax (and could overflow); code = round(x / scale).
// |x - scale code| <= scale / 2 (1 + 2^-15), the slack for rounding in float.
// Layout: 8 bits, one int8 an element; 4 bits, code + 8 as nibbles, planar in a block: nibble i of
// the 32-bit word j holds element i block_size/8 + j. The last block is padded with zeros. Scales
// are one float a block.
#pragma once

#include "isa/lanes.h"

namespace cosmic::COSMIC_TARGET {

constexpr int64_t kMaxQuantizedBlock = 4096;

// Adding and taking away 1.5 2^23 rounds a float below 2^22 to the nearest integer, ties to even.
COSMIC_INLINE int32_t round_to_int(float x) {
  const float shifted = x + 12582912.0f;
  int32_t bits;
  __builtin_memcpy(&bits, &shifted, 4);
  return bits - 0x4b400000;
}

COSMIC_INLINE float block_absmax(const float *x, int64_t count) {
  uint32_t top = 0;
  for (int64_t k = 0; k < count; ++k) {
    uint32_t bits;
    __builtin_memcpy(&bits, x + k, 4);
    bits &= 0x7fffffff;
    top = bits > top ? bits : top;
  }
  float out;
  __builtin_memcpy(&out, &top, 4);
  return out;
}

COSMIC_INLINE float block_scale(float absmax, float levels) {
  float scale = absmax / levels;
  if (scale * levels > absmax) {
    int32_t bits;
    __builtin_memcpy(&bits, &scale, 4);
    --bits;
    __builtin_memcpy(&scale, &bits, 4);
  }
  return scale;
}

COSMIC_INLINE void pack_nibbles(const int32_t *codes, int64_t block_size, uint8_t *out) {
  const int64_t words = block_size / 8;
  for (int64_t j = 0; j < words; ++j) {
    uint32_t word = 0;
    for (int i = 0; i < 8; ++i) word |= (uint32_t)(codes[i * words + j] + 8) << (4 * i);
    __builtin_memcpy(out + 4 * j, &word, 4);
  }
}

static void quantize_absmax(const float *from, int64_t count, int bits, int64_t block_size,
                            uint8_t *codes, float *scales) {
  const float levels = bits == 4 ? 7.0f : 127.0f;
  const int32_t limit = bits == 4 ? 7 : 127;
  int32_t block[kMaxQuantizedBlock];
  for (int64_t first = 0; first < count; first += block_size) {
    const int64_t here = count - first < block_size ? count - first : block_size;
    const float scale = block_scale(block_absmax(from + first, here), levels);
    *scales++ = scale;
    for (int64_t k = 0; k < block_size; ++k) {
      // a scale that underflowed to zero holds nothing but zeros
      const float x = k < here && scale > 0 ? from[first + k] / scale : 0.0f;
      const int32_t code = round_to_int(x);
      block[k] = code > limit ? limit : code < -limit ? -limit : code;
    }
    if (bits == 4) {
      pack_nibbles(block, block_size, codes);
      codes += block_size / 2;
    } else {
      for (int64_t k = 0; k < block_size; ++k) *codes++ = (uint8_t)(int8_t)block[k];
    }
  }
}

static void dequantize_absmax(const uint8_t *codes, const float *scales, int64_t count, int bits,
                              int64_t block_size, float *to) {
  const int64_t words = block_size / 8;
  for (int64_t first = 0; first < count; first += block_size) {
    const int64_t here = count - first < block_size ? count - first : block_size;
    const float scale = *scales++;
    for (int64_t k = 0; k < here; ++k) {
      int32_t code;
      if (bits == 4) {
        const int64_t i = k / words, j = k % words; // nibble i of word j
        code = ((codes[4 * j + i / 2] >> (4 * (i % 2))) & 15) - 8;
      } else {
        code = (int8_t)codes[k];
      }
      to[first + k] = scale * (float)code;
    }
    codes += bits == 4 ? block_size / 2 : block_size;
  }
}

} // namespace cosmic::COSMIC_TARGET
