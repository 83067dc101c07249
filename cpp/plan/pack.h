// Plain tensors in the codecs of the state: blocks of 128, one 16- or 32-bit word a block.
#pragma once

#include <cstdint>
#include <string>

#include "plan/row.h"

namespace cosmic {

struct PlainCodec {
  int index; // in COSMIC_PLAIN_CODECS
  int bits;
  bool nonnegative;         // stores numbers >= 0 only
  const char *word_dtype;   // torch's name
  int word_code, word_bits; // as DLPack counts
};

// Throws Error with the names that there are.
PlainCodec plain_codec(const std::string &name);

int64_t packed_code_bytes(int64_t count, const PlainCodec &codec);
int64_t packed_words(int64_t count);

// Encodes a tensor of f32, bf16 or f16, rounding with the random bits of `seed`. Returns the index
// of the first element that has no code (not finite, or negative), or -1; the outputs mean nothing
// then.
int64_t pack(const Operand &from, int64_t count, const PlainCodec &codec, uint64_t seed,
             uint8_t *codes, void *words, int threads);

// The inverse, to a contiguous tensor of f32, bf16 or f16.
void unpack(const uint8_t *codes, const void *words, int64_t count, const PlainCodec &codec,
            const Operand &to, int threads);

} // namespace cosmic
