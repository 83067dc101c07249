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
      if (low_)
        kernels_.join_24(from, low_of(first, count), padded_lanes(count), values_);
      else
        widen(from, padded_lanes(count));
    }
    std::fill(values_ + count, values_ + padded, Real(0));
    return values_;
  }

  Real *values() { return values_; }

  // bf16 has 8 bits more in a plane of its own, in the order of the walk; null: it has none.
  void keep_low(int8_t *low) { low_ = low; }

  // From now on bf16 is stored with random bits of this tensor's key, not to nearest.
  void round_stochastically(uint32_t key, const BlockPlace &place = {}) {
    stochastic_ = true;
    key_ = key;
    place_ = place;
  }

  void store(int64_t first, int64_t count) {
    const void *from = values_;
    if constexpr (sizeof(Real) == 4)
      if (operand_.dtype != DType::f32) {
        uint16_t *home = in_place(first, count);
        if (low_)
          split(first, count, home ? home : raw_);
        else
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
    if (stochastic_) return kernels_.round_bf16(values_, count, random_at(first), to);
    (operand_.dtype == DType::bf16 ? kernels_.narrow_bf16 : kernels_.narrow_f16)(values_, count,
                                                                                 to);
  }
  RandomPlace random_at(int64_t element) const {
    const int64_t at = place_.lead + element;
    return {key_, place_.of(at / kBlock), static_cast<int>(at % kBlock)};
  }
  void split(int64_t first, int64_t count, uint16_t *to) {
    const bool whole = count % kLanes == 0;
    int8_t *const low = whole ? low_ + first : raw_low_;
    if (stochastic_)
      kernels_.round_24(values_, padded_lanes(count), random_at(first), to, low);
    else
      kernels_.split_24(values_, padded_lanes(count), to, low);
    if (!whole) std::copy_n(raw_low_, count, low_ + first);
  }
  const int8_t *low_of(int64_t first, int64_t count) {
    if (count % kLanes == 0) return low_ + first;
    std::copy_n(low_ + first, count, raw_low_);
    std::fill(raw_low_ + count, raw_low_ + padded_lanes(count), int8_t{0});
    return raw_low_;
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
  BlockPlace place_;
  int8_t *low_ = nullptr;
  alignas(64) Real values_[kCapacity];
  alignas(64) uint16_t raw_[kCapacity];
  alignas(64) int8_t raw_low_[kCapacity];
};

} // namespace cosmic
