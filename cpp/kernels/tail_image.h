// The encoded image of a tensor's last, partial block, copied to where a whole block has room.
#pragma once

#include <cstddef>

#include "isa/lanes.h"

namespace cosmic::COSMIC_TARGET {

// How long a codec's planes are.
struct PlaneSizes {
  int planes;
  int64_t (*bytes)(int plane, int64_t numel);
};

struct TailImage {
  static constexpr int64_t kMostBytes = kBlock * (int64_t)sizeof(double); // of a block in a plane
  static constexpr int kMostPlanes = 3;
  alignas(64) unsigned char image[kMostPlanes][kMostBytes];
  Planes planes;
  const Planes &home;
  const PlaneSizes sizes;
  const int64_t block, count;

  TailImage(const PlaneSizes &sizes, const Planes &home, int64_t block, int64_t count)
      : home(home), sizes(sizes), block(block), count(count) {
    for (int k = 0; k < sizes.planes; ++k) {
      __builtin_memset(image[k], 0, (size_t)sizes.bytes(k, kBlock));
      __builtin_memcpy(image[k], at(k), (size_t)sizes.bytes(k, count));
      planes.data[k] = image[k];
    }
  }
  void write_back() const {
    for (int k = 0; k < sizes.planes; ++k)
      __builtin_memcpy(at(k), image[k], (size_t)sizes.bytes(k, count));
  }

private:
  unsigned char *at(int k) const {
    return (unsigned char *)home.data[k] + block * sizes.bytes(k, kBlock);
  }
};

} // namespace cosmic::COSMIC_TARGET
