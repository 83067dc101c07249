// The least index that any thread has reported.
#pragma once

#include <atomic>
#include <cstdint>

namespace cosmic {

class FirstIndex {
public:
  explicit FirstIndex(int64_t none) : none_(none), least_(none) {}

  void report(int64_t index) {
    int64_t seen = least_.load();
    while (index < seen && !least_.compare_exchange_weak(seen, index)) {
    }
  }
  // -1 if there was none.
  int64_t value() const { return least_ < none_ ? least_.load() : -1; }

private:
  int64_t none_; // above every index
  std::atomic<int64_t> least_;
};

} // namespace cosmic
