// The function table through which the plan reaches the kernels of one ISA.
#pragma once

#include <cstdint>

#include "core/types.h"
#include "kernels/combinations.h"
#include "kernels/matrix_sums.h"

namespace cosmic {

// Sums over one work item, kept a lane apart until the item is done. A lane of f32 arithmetic is
// carried as the float that it is, so that cutting an item into runs does not change its sums.
struct LaneSums {
  alignas(64) double abs_gradient[kLanes] = {};  // |g|
  alignas(64) double square_update[kLanes] = {}; // u^2, before the learning rate
  alignas(64) double probed[kProbeSums][kLanes] = {};
  alignas(64) double encoded[kLanes] = {}; // what the first moment's codec adds up
  bool more = false;                       // whether anything but the first two was added up
  int64_t nonfinite = 0;                   // elements of g that are infinite or NaN
};

// Consecutive elements of one tensor, from a whole block on. `param` and `gradient` are of the
// arithmetic type and can be read and written up to the end of the last block.
struct BlockRun {
  void *param;
  const void *gradient;
  Planes m, m_slow, v; // of the whole tensor
  int64_t first_block;
  int64_t count; // elements
  const Coefficients *coefficients;
  LaneSums *sums;
  MatrixSums *matrix; // of a second moment by rows and columns, else null
  BlockLook *looks;   // of the whole tensor, where a probe looks by block, else null
};

struct Kernels {
  const char *isa;
  void (*step[kCombinations])(const BlockRun &run);
  // The probe's sums over what the moments are about to become; changes nothing but them and reads
  // no parameter. Null where there is no probe.
  void (*measure[kCombinations])(const BlockRun &run);
  // |g| and non-finite elements of whole or zero-padded blocks
  void (*inspect_f32)(const float *gradient, int64_t count, LaneSums *sums);
  void (*inspect_f64)(const double *gradient, int64_t count, LaneSums *sums);
  // between storage types and the arithmetic type
  void (*widen_bf16)(const uint16_t *from, int64_t count, float *to);
  void (*widen_f16)(const uint16_t *from, int64_t count, float *to);
  void (*narrow_bf16)(const float *from, int64_t count, uint16_t *to); // to nearest, ties to even
  // stochastic; the elements begin at a whole block of the tensor with this key
  void (*round_bf16)(const float *from, int64_t count, uint32_t tensor_key, int64_t first_block,
                     uint16_t *to);
  void (*narrow_f16)(const float *from, int64_t count, uint16_t *to);
  // plain block-wise quantization, see codecs/absmax.h
  void (*quantize)(const float *from, int64_t count, int bits, int64_t block_size, uint8_t *codes,
                   float *scales);
  void (*dequantize)(const uint8_t *codes, const float *scales, int64_t count, int bits,
                     int64_t block_size, float *to);
};

} // namespace cosmic
