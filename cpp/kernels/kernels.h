// The function table through which the plan reaches the kernels of one ISA.
#pragma once

#include <cstdint>

#include "core/types.h"
#include "kernels/composition.h"
#include "kernels/matrix_sums.h"

namespace cosmic {

// Sums over one work item, kept a lane apart until the item is done. A lane of f32 arithmetic is
// carried as the float that it is, so that cutting an item into runs does not change its sums.
struct LaneSums {
  alignas(64) double abs_gradient[kLanes] = {};  // |g|
  alignas(64) double square_update[kLanes] = {}; // u^2, before the learning rate
  alignas(64) double probed[kProbeSums][kLanes] = {};
  alignas(64) double encoded[kLanes] = {};      // what the first moment's codec adds up
  alignas(64) double square_param[kLanes] = {}; // p^2 of the new parameter, where it is asked for
  bool more = false;                            // whether anything but the first two was added up
  int64_t nonfinite = 0;                        // elements of g that are infinite or NaN
};

// Where random bits begin that go by an element's place in the whole tensor, of which what is
// worked on may be a shard.
struct RandomPlace {
  uint32_t tensor_key;
  int64_t block; // of the whole tensor
  int lane = 0;  // of that block
};

// Consecutive elements of one tensor, from a whole block on. `param` and `gradient` are of the
// arithmetic type and can be read and written up to the end of the last block.
struct BlockRun {
  const Composition *parts;
  void *param; // of a measuring pass null, or read only: where its squares are asked for
  const void *gradient;
  Planes m, m_slow, v; // of the whole tensor
  int64_t first_block;
  int64_t count; // elements
  const Coefficients *coefficients;
  LaneSums *sums;
  MatrixSums *matrix = nullptr; // of a second moment by rows and columns, else null
  BlockLook *looks = nullptr;   // of the whole tensor, where a probe looks by block, else null
  const AskedProbe *probes = nullptr;
  int probe_count = 0;
  // whether these sums are asked for; that of the update, which every step has, of a measuring pass
  bool square_param = false, square_update = false;
  // From a block's number here to its number in the whole tensor, and the lane of that block where
  // the run begins: zero but where it is one partial block.
  int64_t shift = 0;
  int lane = 0;
};

// Consecutive elements of one tensor's moments, from a whole block on, at most kStageBlocks of them
// and of float arithmetic. Values have room for whole blocks and do not outlive an encoding; those
// of a slot that is not there are null.
struct MomentRun {
  const Composition *parts;
  Planes m, m_slow, v; // of the whole tensor
  int64_t first_block;
  int64_t count; // elements
  const Coefficients *coefficients;
  MatrixSums *matrix; // as in BlockRun
  float *m_values = nullptr, *slow_values = nullptr, *v_values = nullptr;
  double *encoded = nullptr; // where a first moment's codec adds up what it does over the tensor
  int64_t shift = 0;         // as in BlockRun
  int lane = 0;
};

// As much of a plain tensor, packed by one codec.
struct PlainRun {
  Planes planes;
  int64_t first_block;
  int64_t count;
  uint32_t random_key;
  float *values;
};

// Blocks that are worked on together, so that the chains from a block's statistics to its codes
// overlap.
constexpr int kStageBlocks = 4;

struct ProductKernels; // matmul/product_kernels.h
struct ExactKernels;   // exact/exact_kernels.h
struct WireKernels;    // wire/format.h

struct Kernels {
  const char *isa;
  // Bytes of a plane of a codec (CodecAt) for so many elements, -1 if it has no such plane: for a
  // comparison with what the codec says of itself.
  int64_t (*plane_bytes)(int codec, bool second_moment, int plane, int64_t numel);
  // Of any parts with any probes. What is hot runs inlined where it can.
  void (*step)(const BlockRun &run);
  // The same bits, by the parts that all combinations share.
  void (*step_by_parts)(const BlockRun &run);
  // The sums over what the moments are about to become, and the parameter is; changes nothing else.
  void (*measure)(const BlockRun &run);
  void (*measure_by_parts)(const BlockRun &run);
  // State to numbers and numbers to state, outside a step: carrying moments to another rung, and to
  // and from AdamW's checkpoints.
  void (*decode)(const MomentRun &run);
  void (*encode)(const MomentRun &run);
  // by position in COSMIC_PLAIN_CODECS
  void (*unpack[kPlainCodecs])(const PlainRun &run);
  void (*pack[kPlainCodecs])(const PlainRun &run);
  // |g| and non-finite elements of whole or zero-padded blocks
  void (*inspect_f32)(const float *gradient, int64_t count, LaneSums *sums);
  void (*inspect_f64)(const double *gradient, int64_t count, LaneSums *sums);
  // p <- decay p - step u for whole or zero-padded blocks, and the sums of u^2 and the new p^2
  void (*descend)(float *param, const float *direction, int64_t count, const Coefficients &c,
                  bool square_param, LaneSums *sums);
  // between storage types and the arithmetic type
  void (*widen_bf16)(const uint16_t *from, int64_t count, float *to);
  void (*widen_f16)(const uint16_t *from, int64_t count, float *to);
  void (*narrow_bf16)(const float *from, int64_t count, uint16_t *to); // to nearest, ties to even
  // stochastic; elements that begin in mid-block lie in that block
  void (*round_bf16)(const float *from, int64_t count, const RandomPlace &place, uint16_t *to);
  void (*narrow_f16)(const float *from, int64_t count, uint16_t *to);
  // bf16 with 8 bits more, see kernels/master.h; to nearest, and stochastic as round_bf16
  void (*join_24)(const uint16_t *high, const int8_t *low, int64_t count, float *to);
  void (*split_24)(const float *from, int64_t count, uint16_t *high, int8_t *low);
  void (*round_24)(const float *from, int64_t count, const RandomPlace &place, uint16_t *high,
                   int8_t *low);
  // plain block-wise quantization, see codecs/absmax.h
  void (*quantize)(const float *from, int64_t count, int bits, int64_t block_size, uint8_t *codes,
                   float *scales);
  void (*dequantize)(const uint8_t *codes, const float *scales, int64_t count, int bits,
                     int64_t block_size, float *to);
  // products of matrices, see matmul/product.h
  const ProductKernels *products;
  // functions of elements and of rows, see exact/elements.h and exact/rows.h
  const ExactKernels *exact;
  // gradients to bytes and back, see wire/wire.h
  const WireKernels *wire;
};

} // namespace cosmic
