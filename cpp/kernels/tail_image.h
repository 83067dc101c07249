// The encoded image of a tensor's last, partial block, copied to where a whole block has room.
#pragma once

#include "isa/lanes.h"

namespace cosmic::COSMIC_TARGET {

// Bytes of one block in the codec's widest plane; 1 for a codec without any.
template <class Codec> constexpr int64_t widest_plane() {
  int64_t widest = 1;
  for (int k = 0; k < Codec::kPlanes; ++k)
    if (Codec::bytes(k, kBlock) > widest) widest = Codec::bytes(k, kBlock);
  return widest;
}

template <class Codec> struct TailImage {
  static constexpr int kImages = Codec::kPlanes ? Codec::kPlanes : 1;
  static constexpr int64_t kBytes = widest_plane<Codec>();
  alignas(64) unsigned char image[kImages][kBytes];
  Planes planes;
  const Planes &home;
  int64_t block, count;

  COSMIC_METHOD TailImage(const Planes &home, int64_t block, int64_t count)
      : home(home), block(block), count(count) {
    for (int k = 0; k < Codec::kPlanes; ++k) {
      __builtin_memset(image[k], 0, sizeof(image[k]));
      __builtin_memcpy(image[k], at(k), Codec::bytes(k, count));
      planes.data[k] = image[k];
    }
  }
  COSMIC_METHOD void write_back() const {
    for (int k = 0; k < Codec::kPlanes; ++k)
      __builtin_memcpy(at(k), image[k], Codec::bytes(k, count));
  }

private:
  COSMIC_METHOD unsigned char *at(int k) const {
    return (unsigned char *)home.data[k] + block * Codec::bytes(k, kBlock);
  }
};

} // namespace cosmic::COSMIC_TARGET
