#include "core/sha256.h"

#include <algorithm>
#include <cstring>

namespace cosmic {

namespace {

constexpr int64_t kBlockBytes = 64, kLengthBytes = 8;

// The first 32 bits of the fractional parts of the cube roots of the first 64 primes.
constexpr uint32_t kRounds[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

uint32_t rotated(uint32_t x, int bits) { return x >> bits | x << (32 - bits); }

uint32_t big_endian(const unsigned char *bytes) {
  return static_cast<uint32_t>(bytes[0]) << 24 | static_cast<uint32_t>(bytes[1]) << 16 |
         static_cast<uint32_t>(bytes[2]) << 8 | bytes[3];
}

void expand(const unsigned char *block, uint32_t (&words)[64]) {
  for (int t = 0; t < 16; ++t) words[t] = big_endian(block + 4 * t);
  for (int t = 16; t < 64; ++t) {
    const uint32_t x = words[t - 15], y = words[t - 2];
    words[t] = words[t - 16] + words[t - 7] + (rotated(x, 7) ^ rotated(x, 18) ^ x >> 3) +
               (rotated(y, 17) ^ rotated(y, 19) ^ y >> 10);
  }
}

} // namespace

void Sha256::add_block(const unsigned char *block) {
  uint32_t words[64];
  expand(block, words);
  uint32_t s[8]; // a, b, ... h of the standard
  std::copy_n(state_, 8, s);
  for (int t = 0; t < 64; ++t) {
    const uint32_t first = s[7] + (rotated(s[4], 6) ^ rotated(s[4], 11) ^ rotated(s[4], 25)) +
                           ((s[4] & s[5]) ^ (~s[4] & s[6])) + kRounds[t] + words[t];
    const uint32_t second = (rotated(s[0], 2) ^ rotated(s[0], 13) ^ rotated(s[0], 22)) +
                            ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
    std::copy_backward(s, s + 7, s + 8);
    s[4] += first;
    s[0] = first + second;
  }
  for (int k = 0; k < 8; ++k) state_[k] += s[k];
}

void Sha256::add(const void *data, int64_t bytes) {
  const auto *from = static_cast<const unsigned char *>(data);
  while (bytes > 0) {
    const int64_t held = bytes_ % kBlockBytes, taken = std::min(bytes, kBlockBytes - held);
    std::memcpy(waiting_ + held, from, static_cast<size_t>(taken));
    from += taken;
    bytes -= taken;
    bytes_ += taken;
    if (bytes_ % kBlockBytes == 0) add_block(waiting_);
  }
}

std::string Sha256::digest() {
  const auto bits = static_cast<uint64_t>(bytes_) * 8;
  const unsigned char mark = 0x80, zero = 0;
  add(&mark, 1);
  while (bytes_ % kBlockBytes != kBlockBytes - kLengthBytes) add(&zero, 1);
  unsigned char length[kLengthBytes];
  for (int k = 0; k < kLengthBytes; ++k)
    length[k] = static_cast<unsigned char>(bits >> (56 - 8 * k));
  add(length, kLengthBytes);
  std::string text;
  for (const uint32_t word : state_)
    for (int shift = 28; shift >= 0; shift -= 4) text += "0123456789abcdef"[word >> shift & 15];
  return text;
}

} // namespace cosmic
