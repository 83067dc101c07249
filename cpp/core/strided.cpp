#include "core/strided.h"

#include <algorithm>
#include <cstring>

namespace cosmic {

int64_t TensorView::numel() const {
  int64_t n = 1;
  for (int d = 0; d < ndim; ++d) n *= sizes[d];
  return n;
}

bool TensorView::same_sizes(const TensorView &other) const {
  return ndim == other.ndim && std::equal(sizes, sizes + ndim, other.sizes);
}

bool TensorView::same_geometry(const TensorView &other) const {
  return dtype == other.dtype && same_sizes(other) &&
         std::equal(strides, strides + ndim, other.strides);
}

bool Slice::lies_within(const TensorView &tensor) const {
  return dimension >= 0 && dimension < tensor.ndim && start >= 0 && size > 0 &&
         size <= tensor.sizes[dimension] - start;
}

TensorView narrowed(const TensorView &tensor, const Slice &slice) {
  TensorView view = tensor;
  view.sizes[slice.dimension] = slice.size;
  if (tensor.numel() > 0) // else there is no memory
    view.data = static_cast<char *>(tensor.data) +
                slice.start * tensor.strides[slice.dimension] * item_size(tensor.dtype);
  return view;
}

TensorView dense_matrix(int64_t rows, int64_t columns) {
  TensorView view;
  view.ndim = 2;
  view.sizes[0] = rows;
  view.sizes[1] = view.strides[0] = columns;
  view.strides[1] = 1;
  return view;
}

WalkOrder walk_order(const TensorView &tensor) {
  WalkOrder order;
  for (int d = 0; d < tensor.ndim; ++d)
    if (tensor.sizes[d] != 1) order.dims[order.ndim++] = d;
  if (tensor.numel() <= 1) return order;

  int by_stride[kMaxDims];
  std::copy(order.dims, order.dims + order.ndim, by_stride);
  std::stable_sort(by_stride, by_stride + order.ndim,
                   [&](int a, int b) { return tensor.strides[a] > tensor.strides[b]; });
  int64_t reach = 1; // elements spanned by the dimensions inside this one
  for (int k = order.ndim - 1; k >= 0; --k) {
    const int d = by_stride[k];
    if (tensor.strides[d] != reach) order.dense = false;
    if (tensor.strides[d] < reach) order.overlaps = true;
    reach = tensor.strides[d] * (tensor.sizes[d] - 1) + reach;
  }
  if (order.dense) std::copy(by_stride, by_stride + order.ndim, order.dims);
  return order;
}

Walk walk_along(const TensorView &tensor, const WalkOrder &order) {
  Walk walk;
  if (tensor.numel() == 0) return walk; // nowhere to go: its strides mean nothing
  for (int k = 0; k < order.ndim; ++k) {
    const int64_t size = tensor.sizes[order.dims[k]], stride = tensor.strides[order.dims[k]];
    if (!walk.sizes.empty() && walk.strides.back() == size * stride) {
      walk.sizes.back() *= size;
      walk.strides.back() = stride;
    } else {
      walk.sizes.push_back(size);
      walk.strides.push_back(stride);
    }
  }
  if (walk.sizes.size() == 1 && walk.strides[0] == 1) walk = Walk{};
  return walk;
}

int64_t Walk::offset_of(int64_t element) const {
  if (contiguous()) return element;
  int64_t offset = 0;
  for (size_t d = sizes.size(); d-- > 0; element /= sizes[d])
    offset += element % sizes[d] * strides[d];
  return offset;
}

namespace {

// Calls visit(element offset, run length, stride) for each innermost run of [first, first + count).
template <class Visit>
void for_each_run(const Walk &walk, int64_t first, int64_t count, Visit visit) {
  if (walk.contiguous()) return visit(first, count, int64_t{1});
  const int ndim = static_cast<int>(walk.sizes.size());
  int64_t index[kMaxDims], offset = 0, rest = first;
  for (int d = ndim - 1; d >= 0; --d) {
    index[d] = rest % walk.sizes[d];
    rest /= walk.sizes[d];
    offset += index[d] * walk.strides[d];
  }
  const int inner = ndim - 1;
  while (count > 0) {
    const int64_t run = std::min(count, walk.sizes[inner] - index[inner]);
    visit(offset, run, walk.strides[inner]);
    count -= run;
    index[inner] += run;
    offset += run * walk.strides[inner];
    for (int d = inner; d > 0 && index[d] == walk.sizes[d]; --d) {
      offset += walk.strides[d - 1] - index[d] * walk.strides[d];
      index[d] = 0;
      ++index[d - 1];
    }
  }
}

template <class Item>
void gather_items(const Item *base, const Walk &walk, int64_t first, int64_t count, Item *out) {
  for_each_run(walk, first, count, [&](int64_t offset, int64_t run, int64_t stride) {
    if (stride == 1)
      std::memcpy(out, base + offset, static_cast<size_t>(run) * sizeof(Item));
    else
      for (int64_t k = 0; k < run; ++k) out[k] = base[offset + k * stride];
    out += run;
  });
}

template <class Item>
void scatter_items(const Item *in, const Walk &walk, int64_t first, int64_t count, Item *base) {
  for_each_run(walk, first, count, [&](int64_t offset, int64_t run, int64_t stride) {
    if (stride == 1)
      std::memcpy(base + offset, in, static_cast<size_t>(run) * sizeof(Item));
    else
      for (int64_t k = 0; k < run; ++k) base[offset + k * stride] = in[k];
    in += run;
  });
}

} // namespace

void gather(const void *base, const Walk &walk, int64_t item, int64_t first, int64_t count,
            void *out) {
  if (item == 2)
    gather_items(static_cast<const uint16_t *>(base), walk, first, count,
                 static_cast<uint16_t *>(out));
  else if (item == 4)
    gather_items(static_cast<const uint32_t *>(base), walk, first, count,
                 static_cast<uint32_t *>(out));
  else
    gather_items(static_cast<const uint64_t *>(base), walk, first, count,
                 static_cast<uint64_t *>(out));
}

void scatter(const void *in, const Walk &walk, int64_t item, int64_t first, int64_t count,
             void *base) {
  if (item == 2)
    scatter_items(static_cast<const uint16_t *>(in), walk, first, count,
                  static_cast<uint16_t *>(base));
  else if (item == 4)
    scatter_items(static_cast<const uint32_t *>(in), walk, first, count,
                  static_cast<uint32_t *>(base));
  else
    scatter_items(static_cast<const uint64_t *>(in), walk, first, count,
                  static_cast<uint64_t *>(base));
}

} // namespace cosmic
