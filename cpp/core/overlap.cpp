#include "core/overlap.h"

#include <algorithm>
#include <cstdint>
#include <tuple>
#include <utility>

#include "core/error.h"

namespace cosmic {

namespace {

struct Range {
  uintptr_t begin, end; // bytes
  const NamedSpan *span;
};

Range range_of(const NamedSpan &span) {
  const TensorView &view = *span.view;
  int64_t last = 0;
  for (int d = 0; d < view.ndim; ++d) last += (view.sizes[d] - 1) * view.strides[d];
  const auto begin = reinterpret_cast<uintptr_t>(view.data);
  return {begin, begin + static_cast<uintptr_t>((last + 1) * item_size(view.dtype)), &span};
}

// Marks the bytes of every element of a view inside `range`; true if one was marked before.
bool mark(const Range &owner, uintptr_t begin, std::vector<bool> &marks) {
  const TensorView &view = *owner.span->view;
  const int64_t item = item_size(view.dtype), numel = view.numel();
  int64_t index[kMaxDims] = {};
  uintptr_t at = owner.begin;
  bool twice = false;
  for (int64_t k = 0; k < numel; ++k) {
    for (int64_t byte = 0; byte < item; ++byte) {
      auto seen = marks[at - begin + static_cast<uintptr_t>(byte)];
      twice |= seen;
      seen = true;
    }
    for (int d = view.ndim - 1; d >= 0; --d) {
      at += static_cast<uintptr_t>(view.strides[d] * item);
      if (++index[d] < view.sizes[d]) break;
      at -= static_cast<uintptr_t>(view.sizes[d] * view.strides[d] * item);
      index[d] = 0;
    }
  }
  return twice;
}

bool share_element(const Range &a, const Range &b) {
  if (a.span->dense && b.span->dense) return true;
  const uintptr_t begin = std::min(a.begin, b.begin), end = std::max(a.end, b.end);
  std::vector<bool> marks(end - begin);
  mark(a, begin, marks);
  return mark(b, begin, marks);
}

// Of spans that have elements, by where they begin.
std::vector<Range> sorted_ranges(const std::vector<NamedSpan> &spans) {
  std::vector<Range> ranges;
  for (const NamedSpan &span : spans)
    if (span.view->numel() > 0) ranges.push_back(range_of(span));
  std::sort(ranges.begin(), ranges.end(), [](const Range &a, const Range &b) {
    return std::tie(a.begin, a.span) < std::tie(b.begin, b.span);
  });
  return ranges;
}

// Calls visit(a, b) for any two ranges that reach into each other.
template <class Visit> void for_each_pair(const std::vector<Range> &ranges, Visit visit) {
  for (size_t k = 0; k < ranges.size(); ++k)
    for (size_t j = k + 1; j < ranges.size() && ranges[j].begin < ranges[k].end; ++j)
      visit(ranges[k], ranges[j]);
}

} // namespace

void check_distinct(const std::vector<NamedSpan> &spans) {
  for_each_pair(sorted_ranges(spans), [](const Range &a, const Range &b) {
    if (share_element(a, b))
      throw Error(ErrorKind::value,
                  *a.span->name + " and " + *b.span->name +
                      " share memory; COSMIC steps parameters whose elements are distinct: "
                      "give a tied weight once, as one parameter");
  });
}

void check_apart(const std::vector<NamedSpan> &copies, const std::vector<NamedSpan> &others) {
  std::vector<NamedSpan> all = copies;
  all.insert(all.end(), others.begin(), others.end());
  const NamedSpan *const end_of_copies = all.data() + copies.size();
  const auto is_copy = [&](const Range &range) { return range.span < end_of_copies; };
  for_each_pair(sorted_ranges(all), [&](const Range &a, const Range &b) {
    if ((!is_copy(a) && !is_copy(b)) || !share_element(a, b)) return;
    const Range &copy = is_copy(a) ? a : b, &other = is_copy(a) ? b : a;
    throw Error(ErrorKind::value,
                *copy.span->name + ": its copy in copy_to shares memory with " +
                    (is_copy(other) ? "the copy of " : "the parameter or the gradient of ") +
                    *other.span->name + "; expected a tensor of its own for each parameter");
  });
}

} // namespace cosmic
