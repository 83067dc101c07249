// A copy of a row's parameter in 16 bits, which a step writes while what it has stored is still in
// L1.
#pragma once

#include <algorithm>

#include "plan/reader.h"

namespace cosmic {

// The parameter rounded to nearest, or its own bits where it is of the copy's type.
template <class Real> class CopyWriter {
public:
  CopyWriter(const Row &row, const Kernels &kernels)
      : param_(row.param), copy_(row.copy), kernels_(kernels) {}

  // How the blocks of an item are cut, as of for_each_run: a copy asks for short runs.
  int64_t in_place(int64_t others) const { return copy_.data ? kNone : others; }

  // Elements [first, first + count) of the parameter, from a whole block on, which are stored;
  // `values` has them as they were before that, up to the end of the last block.
  void take(const Real *values, int64_t first, int64_t count) {
    if (!copy_.data) return;
    if (param_.dtype == copy_.dtype) {
      gather(param_.data, param_.walk, 2, first, count, copy_.walk.contiguous() ? at(first) : raw_);
      if (!copy_.walk.contiguous()) scatter(raw_, copy_.walk, 2, first, count, copy_.data);
      return;
    }
    const int64_t padded = (count + kLanes - 1) / kLanes * kLanes;
    const bool direct = copy_.walk.contiguous() && padded == count;
    narrow(as_floats(values, first, count, padded), padded, direct ? at(first) : raw_);
    if (!direct) scatter(raw_, copy_.walk, 2, first, count, copy_.data);
  }

private:
  static constexpr int64_t kCapacity = kCopyBlocks * kBlock;

  uint16_t *at(int64_t first) const { return static_cast<uint16_t *>(copy_.data) + first; }
  void narrow(const float *from, int64_t count, uint16_t *to) const {
    (copy_.dtype == DType::bf16 ? kernels_.narrow_bf16 : kernels_.narrow_f16)(from, count, to);
  }
  const float *as_floats(const Real *values, int64_t first, int64_t count, int64_t padded) {
    if constexpr (sizeof(Real) == 8) {
      std::transform(values, values + padded, floats_,
                     [](double x) { return static_cast<float>(x); });
      return floats_;
    } else {
      if (param_.dtype == DType::f32) return values;
      gather(param_.data, param_.walk, 2, first, count, raw_); // as it was rounded
      std::fill(raw_ + count, raw_ + padded, uint16_t{0});
      (param_.dtype == DType::bf16 ? kernels_.widen_bf16 : kernels_.widen_f16)(raw_, padded,
                                                                               floats_);
      return floats_;
    }
  }

  const Operand &param_, &copy_;
  const Kernels &kernels_;
  alignas(64) float floats_[kCapacity];
  alignas(64) uint16_t raw_[kCapacity];
};

} // namespace cosmic
