// The operator that watches tensors: see core/tensor_watch.h.
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "aten/ops.h"
#include "core/tensor_watch.h"

namespace cosmic {

namespace {

using torch::stable::Tensor;

// Where a tensor lies, how far it reaches and how much its storage holds, read anew each time from
// the tensor that Python knows: a handle shares it, not a copy of what it was. What is done to
// strides or dtype alone moves nothing.
struct Place {
  void *data = nullptr;
  int64_t numel = 0, storage_bytes = 0;

  explicit Place(AtenTensorHandle tensor) {
    STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_data_ptr(tensor, &data));
    STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_numel(tensor, &numel));
    STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_storage_size(tensor, &storage_bytes));
  }
  bool operator==(const Place &other) const {
    return data == other.data && numel == other.numel && storage_bytes == other.storage_bytes;
  }
};

class Watch final : public TensorWatch {
public:
  explicit Watch(const std::vector<Tensor> &tensors) {
    items_.reserve(tensors.size());
    for (const Tensor &tensor : tensors) items_.push_back({tensor, Place(tensor.get())});
  }

  // Whether these are the tensors that lie at the addresses, not copies that somebody has put in
  // their place.
  bool lie_at(const std::vector<int64_t> &addresses) const {
    bool all = addresses.size() == items_.size();
    for (size_t k = 0; all && k < items_.size(); ++k)
      all = reinterpret_cast<intptr_t>(items_[k].place.data) == addresses[k];
    return all;
  }

  bool same(size_t first, size_t count) const override {
    for (size_t k = first; k < first + count; ++k) {
      ask_ahead(k);
      if (!(Place(items_[k].tensor.get()) == items_[k].place)) return false;
    }
    return true;
  }

private:
  struct Item {
    Tensor tensor;
    Place place;
  };

  // Looking is waiting for memory: what torch keeps of a tensor, and of its storage. Where that
  // lies is taken from the first words of a handle and of what it points to, as a hint: nothing
  // depends on it but time.
  void ask_ahead(size_t k) const {
    constexpr size_t kFar = 16, kNear = 8, kWordOfStorage = 2;
    if (k + kFar < items_.size()) {
      const char *tensor = word(items_[k + kFar].tensor.get(), 0);
      __builtin_prefetch(tensor);
      __builtin_prefetch(tensor + 160);
    }
    if (k + kNear < items_.size())
      __builtin_prefetch(word(word(items_[k + kNear].tensor.get(), 0), kWordOfStorage));
  }
  static const char *word(const void *at, size_t index) {
    const char *out = nullptr;
    std::memcpy(static_cast<void *>(&out), static_cast<const char *>(at) + index * sizeof(out),
                sizeof(out));
    return out;
  }

  std::vector<Item> items_;
};

} // namespace

int64_t watch(const std::vector<Tensor> &tensors, const std::vector<int64_t> &addresses) {
  auto made = std::make_unique<Watch>(tensors);
  if (!made->lie_at(addresses)) return 0;
  TensorWatch *const watch = made.release();
  return static_cast<int64_t>(reinterpret_cast<intptr_t>(watch));
}

} // namespace cosmic
