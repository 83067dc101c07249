// How gradients look on a wire: formats, their bytes, and what the kernels of an ISA do with them.
// Plain data. Every format codes blocks of 128 elements, the last one padded with zeros, each in
// bytes of its own:
//
//   q8, u4  the codes of codecs/signed_levels.h, then the scale, a bf16 number: 130 or 66 bytes
//   top8    the 8 largest magnitudes, wire/top8.h: 13 bytes
//
// A block with an element that is NaN, or 2^127 or more (a level might overflow), has a scale that
// is NaN, by which all of it is decoded as NaN.
#pragma once

#include <cstdint>

#include "core/types.h"

namespace cosmic {

enum class WireFormat : uint8_t { q8, u4, top8 };
constexpr int kWireFormats = 3;
constexpr const char *kWireNames[kWireFormats] = {"q8", "u4", "top8"};
constexpr int64_t kWireBytes[kWireFormats] = {130, 66, 13}; // of a block

// Whole blocks on their way to the wire.
struct WireEncoding {
  const float *values; // gradients
  float *residual;     // added to them, and becomes `decay` of what was not sent; null: none
  float decay;
  int64_t first_block, blocks;
  uint8_t *bytes;
  bool stochastic; // rounding, else to nearest; top8 is to nearest
  uint32_t key;    // of its random bits
};

// The same blocks of some ranks, as they came from the wire.
struct WireDecoding {
  const uint8_t *bytes; // of the first rank
  int64_t stride;       // from rank to rank
  int ranks;
  int64_t blocks;
  float *values; // become the mean: the sum in the order of ranks, over their number
};

struct WireKernels {
  // by WireFormat
  void (*encode[kWireFormats])(const WireEncoding &encoding);
  void (*decode[kWireFormats])(const WireDecoding &decoding);
};

} // namespace cosmic
