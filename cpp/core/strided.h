// Tensors that are not one dense run of memory: geometry, gather and scatter.
#pragma once

#include <cstdint>
#include <vector>

#include "core/types.h"

namespace cosmic {

// A borrowed tensor: sizes and strides in elements, as DLPack describes it.
struct TensorView {
  void *data = nullptr;
  DType dtype = DType::f32;
  int ndim = 0;
  int64_t sizes[kMaxDims] = {};
  int64_t strides[kMaxDims] = {};

  int64_t numel() const;
  bool same_geometry(const TensorView &other) const;
  bool same_sizes(const TensorView &other) const;
};

// A part of a tensor: `size` elements of one of its dimensions, from `start` on.
struct Slice {
  int dimension = 0;
  int64_t start = 0, size = 0;

  bool lies_within(const TensorView &tensor) const;
};

// That part, which lies within the tensor, as a view of the same memory.
TensorView narrowed(const TensorView &tensor, const Slice &slice);

// A matrix whose rows lie one after another, without memory yet.
TensorView dense_matrix(int64_t rows, int64_t columns);

// The order in which a parameter's elements are walked: of memory where the tensor is dense
// (channels_last, transposed), of its indices where it has gaps.
struct WalkOrder {
  bool dense = true;       // elements fill one run of memory
  bool overlaps = false;   // two indices reach the same element
  int dims[kMaxDims] = {}; // outermost first
  int ndim = 0;
};
WalkOrder walk_order(const TensorView &tensor);

// Offsets of a tensor's elements along somebody's walk order. No dimensions: one run of memory.
struct Walk {
  std::vector<int64_t> sizes, strides; // outermost first, neighbouring dimensions merged
  bool contiguous() const { return sizes.empty(); }
  // Elements that lie one after another at a time, where it is not all of them.
  int64_t run_length() const { return !contiguous() && strides.back() == 1 ? sizes.back() : 1; }
  int64_t offset_of(int64_t element) const;
};
Walk walk_along(const TensorView &tensor, const WalkOrder &order);

// Copy elements [first, first + count) of a walk to or from one run of memory.
void gather(const void *base, const Walk &walk, int64_t item, int64_t first, int64_t count,
            void *out);
void scatter(const void *in, const Walk &walk, int64_t item, int64_t first, int64_t count,
             void *base);

} // namespace cosmic
