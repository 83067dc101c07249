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
    } else {
      gather(operand_.data, operand_.walk, item, first, count, raw_);
      if constexpr (sizeof(Real) == 4) widen(count);
    }
    std::fill(values_ + count, values_ + padded, Real(0));
    return values_;
  }

  Real *values() { return values_; }

  void store(int64_t first, int64_t count) {
    const void *from = values_;
    if constexpr (sizeof(Real) == 4) from = narrow(count);
    scatter(from, operand_.walk, item_size(operand_.dtype), first, count, operand_.data);
  }

private:
  // Conversions work on whole groups of lanes; the buffers have room for them.
  void widen(int64_t count) {
    std::fill(raw_ + count, raw_ + padded_lanes(count), uint16_t{0});
    if (operand_.dtype == DType::bf16)
      kernels_.widen_bf16(raw_, padded_lanes(count), values_);
    else
      kernels_.widen_f16(raw_, padded_lanes(count), values_);
  }
  const void *narrow(int64_t count) {
    if (operand_.dtype == DType::f32) return values_;
    if (operand_.dtype == DType::bf16)
      kernels_.narrow_bf16(values_, padded_lanes(count), raw_);
    else
      kernels_.narrow_f16(values_, padded_lanes(count), raw_);
    return raw_;
  }
  static int64_t padded_lanes(int64_t count) { return (count + kLanes - 1) / kLanes * kLanes; }

  const Operand &operand_;
  const Kernels &kernels_;
  alignas(64) Real values_[kCapacity];
  alignas(64) uint16_t raw_[kCapacity];
};

} // namespace cosmic
