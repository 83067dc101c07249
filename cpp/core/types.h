// Words shared by every layer: element types, the block, slots. Plain data only, so that a
// translation unit compiled for a wide ISA can include it without emitting shared functions.
#pragma once

#include <cstdint>

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

// State of one slot as it lies in memory. A codec with codes and scales has two planes.
struct Planes {
  void *data[2] = {nullptr, nullptr};
};

// Everything a rule needs of one tensor at one step, in double; kernels round it once to their
// arithmetic type, so that every ISA starts from the same numbers.
struct Coefficients {
  double beta1 = 0, gradient1 = 0; // m <- beta1 m + gradient1 g (sign of maximize folded in)
  double beta2 = 0, gradient2 = 0; // v <- beta2 v + gradient2 g^2
  double beta_slow = 0, gradient_slow = 0;
  double m_scale = 0, alpha = 0; // numerator m_scale m + alpha m_slow, with a slow EMA
  double v_scale = 0, eps = 0;   // denominator sqrt(v) v_scale + eps
  double v_scale_before = 0;     // v_scale of the step before, which state in update units is in
  double decay = 1, step = 0;    // p <- decay p - step u
  double update_scale = 1;       // the published update is update_scale times the kernel's u
  uint32_t random_key = 0;       // from seed, step and tensor
};

} // namespace cosmic
