// Compiled once per ISA, with COSMIC_TARGET set to its name: what a wire needs of it.
#include "kernels/kernels.h"
#include "wire/format.h"
#include "wire/levels.h"
#include "wire/top8.h"

namespace cosmic::COSMIC_TARGET {

namespace {

COSMIC_INLINE void add_to(float *values, const float *more) {
  for (int k = 0; k < kBlock; k += kLanes)
    (F32::load(values + k) + F32::load(more + k)).store(values + k);
}

COSMIC_INLINE void scale_by(float *values, float factor) {
  for (int k = 0; k < kBlock; k += kLanes)
    (F32::load(values + k) * F32::splat(factor)).store(values + k);
}

COSMIC_INLINE void set_to(float *values, float x) {
  for (int k = 0; k < kBlock; k += kLanes) F32::splat(x).store(values + k);
}

template <class Format> void encode(const WireEncoding &of) {
  for (int64_t k = 0; k < of.blocks; ++k) {
    const float *const values = of.values + k * kBlock;
    uint8_t *const bytes = of.bytes + k * Format::kBytes;
    if (!of.residual) {
      Format::encode(values, bytes, of, of.first_block + k);
      continue;
    }
    float *const residual = of.residual + k * kBlock;
    add_to(residual, values);
    Format::encode(residual, bytes, of, of.first_block + k);
    if (Format::is_number(bytes)) {
      Format::template add<false>(bytes, residual);
      scale_by(residual, of.decay);
    } else { // nothing of it can be sent later
      set_to(residual, 0.0f);
    }
  }
}

template <class Format> void decode(const WireDecoding &of) {
  const F32 ranks = F32::splat((float)of.ranks);
  for (int64_t b = 0; b < of.blocks; ++b) {
    float *const sums = of.values + b * kBlock;
    set_to(sums, 0.0f);
    for (int r = 0; r < of.ranks; ++r)
      Format::template add<true>(of.bytes + r * of.stride + b * Format::kBytes, sums);
    for (int k = 0; k < kBlock; k += kLanes) (F32::load(sums + k) / ranks).store(sums + k);
  }
}

} // namespace

extern const WireKernels wire_kernels;
const WireKernels wire_kernels = {
    {encode<WireLevels<8>>, encode<WireLevels<4>>, encode<Top8>},
    {decode<WireLevels<8>>, decode<WireLevels<4>>, decode<Top8>},
};

} // namespace cosmic::COSMIC_TARGET
