// SHA-256 (FIPS 180-4): a digest that everybody can compute.
#pragma once

#include <cstdint>
#include <string>

namespace cosmic {

class Sha256 {
public:
  void add(const void *data, int64_t bytes);
  // 64 hexadecimal digits, of all that was added; nothing may be added after.
  std::string digest();

private:
  void add_block(const unsigned char *block);

  uint32_t state_[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                        0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  unsigned char waiting_[64] = {}; // less than a block
  int64_t bytes_ = 0;              // added so far
};

} // namespace cosmic
