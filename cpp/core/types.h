// Words shared by every layer: element types, the block, slots. Plain data only, so that a
// translation unit compiled for a wide ISA can include it without emitting shared functions.
#pragma once

#include <cstdint>
#include <limits>

namespace cosmic {

constexpr int kLanes = 16;      // elements of one logical vector on every ISA
constexpr int64_t kBlock = 128; // elements encoded, partitioned and summed together
constexpr int64_t kChunkBlocks =
    128;                     // blocks of one work item: a fixed share, whatever the threads
constexpr int kMaxDims = 16; // dimensions of a tensor that the core accepts

enum class DType : uint8_t { f32, bf16, f16, f64 };

constexpr int64_t item_size(DType dtype) {
  return dtype == DType::f64 ? 8 : dtype == DType::f32 ? 4 : 2;
}

// State of one slot as it lies in memory: codes, scales, and what else a codec keeps by element or
// by block.
struct Planes {
  void *data[4] = {};
};

// What a measuring pass keeps of a block, so that a second one need only look at some.
struct BlockLook {
  double ratio = 0;                    // the sum of a gate's ratio
  double largest_m = 0, largest_v = 0; // |m| and v
};

// Sums that a gate or a codec may ask for beside those of every step.
constexpr int kSumsOfPart = 3, kProbeSums = 2 * kSumsOfPart;

// Everything a rule needs of one tensor at one step, in double; kernels round it once to their
// arithmetic type, so that every ISA starts from the same numbers.
struct Coefficients {
  double beta1 = 0, gradient1 = 0; // m <- beta1 m + gradient1 g (sign of maximize folded in)
  double beta2 = 0, gradient2 = 0; // v <- beta2 v + gradient2 g^2
  double beta_slow = 0, gradient_slow = 0;
  double m_scale = 0, alpha = 0; // numerator m_scale m + alpha m_slow, with a slow EMA
  double v_scale = 0, eps = 0;   // denominator sqrt(v) v_scale + eps
  double v_scale_before = 0;     // v_scale of the step before, which state in update units is in
  double m_correction_before = 1,
         m_correction = 1;        // 1 - beta1^t, of the step before and of this one
  double m_before = 0, m_now = 0; // of a first moment's codec with one number a tensor: what the
                                  // state was encoded with, and what it is to be encoded with
  double focus_scale = 1, focus_floor = 1; // of rule belief, gates/agar.h
  // what gate calibrated_agar holds |m| and v within
  double m_limit = std::numeric_limits<double>::infinity();
  double v_limit = std::numeric_limits<double>::infinity();
  double of_rule[5] = {}, of_gate[2] = {}; // what other parts tell their own arithmetic
  bool first_look = false;                 // the probe's, in a measuring pass
  double decay = 1, step = 0;              // p <- decay p - step u
  double update_scale = 1; // the published update is update_scale times the kernel's u
  uint32_t random_key = 0; // from seed, step and tensor
};

} // namespace cosmic
