// Elements of a tensor of any layout and storage type, copied through a small buffer in the
// arithmetic type and back.
#pragma once

#include <algorithm>

#include "core/strided.h"
#include "kernels/kernels.h"
#include "plan/row.h"

namespace cosmic {

template <class Real> constexpr DType kArithmetic = DType::f32;
template <> constexpr DType kArithmetic<double> = DType::f64;

template <class Real> bool is_direct(const Operand &operand) {
  return operand.dtype == kArithmetic<Real> && operand.walk.contiguous();
}

// Elements of a tensor in the arithmetic type, padded with zeros to whole blocks.
template <class Real, int64_t kCapacity> class Stage {
public:
  Stage(const Operand &operand, const Kernels &kernels) : operand_(operand), kernels_(kernels) {}

  Real *load(int64_t first, int64_t count) {
    const int64_t padded = std::min((count + kBlock - 1) / kBlock * kBlock, kCapacity);
    const int64_t item = item_size(operand_.dtype);
    if (operand_.dtype == kArithmetic<Real>) {
      gather(operand_.data, operand_.walk, item, first, count, values_);
    } else if constexpr (sizeof(Real) == 4) {
      const uint16_t *from = in_place(first, count);
      if (!from) {
        gather(operand_.data, operand_.walk, item, first, count, raw_);
        std::fill(raw_ + count, raw_ + padded_lanes(count), uint16_t{0});
        from = raw_;
      }
      widen(from, padded_lanes(count));
    }
    std::fill(values_ + count, values_ + padded, Real(0));
    return values_;
  }

  Real *values() { return values_; }

  // From now on bf16 is stored with random bits of this tensor's key, not to nearest.
  void round_stochastically(uint32_t key) {
    stochastic_ = true;
    key_ = key;
  }

  void store(int64_t first, int64_t count) {
    const void *from = values_;
    if constexpr (sizeof(Real) == 4)
      if (operand_.dtype != DType::f32) {
        uint16_t *home = in_place(first, count);
        narrow(first, padded_lanes(count), home ? home : raw_);
        if (home) return;
        from = raw_;
      }
    scatter(from, operand_.walk, item_size(operand_.dtype), first, count, operand_.data);
  }

private:
  // Conversions work on whole groups of lanes; the buffers have room for them.
  void widen(const uint16_t *from, int64_t count) {
    (operand_.dtype == DType::bf16 ? kernels_.widen_bf16 : kernels_.widen_f16)(from, count,
                                                                               values_);
  }
  void narrow(int64_t first, int64_t count, uint16_t *to) {
    if (stochastic_) return kernels_.round_bf16(values_, count, key_, first / kBlock, to);
    (operand_.dtype == DType::bf16 ? kernels_.narrow_bf16 : kernels_.narrow_f16)(values_, count,
                                                                                 to);
  }
  // Where 16-bit elements can be converted without a copy between; null if they cannot.
  uint16_t *in_place(int64_t first, int64_t count) const {
    const bool whole = operand_.walk.contiguous() && count % kLanes == 0;
    return whole ? static_cast<uint16_t *>(operand_.data) + first : nullptr;
  }
  static int64_t padded_lanes(int64_t count) { return (count + kLanes - 1) / kLanes * kLanes; }

  const Operand &operand_;
  const Kernels &kernels_;
  bool stochastic_ = false;
  uint32_t key_ = 0;
  alignas(64) Real values_[kCapacity];
  alignas(64) uint16_t raw_[kCapacity];
};

} // namespace cosmic
