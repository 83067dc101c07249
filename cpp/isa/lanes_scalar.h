// Baseline: what every machine of the architecture has. Half precision is converted by integer
// arithmetic that gives the bits of the F16C and AVX-512 instructions.
#pragma once

#include "isa/lanes_generic.h"

namespace cosmic::COSMIC_TARGET {

using F32 = GenericLanes<float>;
using I32 = GenericLanes<int32_t>;
typedef uint32_t Unsigned __attribute__((vector_size(kRegisterBytes)));

COSMIC_INLINE F32 as_float(I32 a) { COSMIC_PARTS(F32, (F32::Part)a.v[q]); }
COSMIC_INLINE I32 as_int(F32 a) { COSMIC_PARTS(I32, (I32::Part)a.v[q]); }
// Integers wrap, as in the instructions of the other ISAs: signed ones would be undefined.
COSMIC_INLINE I32 operator+(I32 a, I32 b) {
  COSMIC_PARTS(I32, (I32::Part)((Unsigned)a.v[q] + (Unsigned)b.v[q]));
}
COSMIC_INLINE I32 operator-(I32 a, I32 b) {
  COSMIC_PARTS(I32, (I32::Part)((Unsigned)a.v[q] - (Unsigned)b.v[q]));
}
COSMIC_INLINE I32 operator&(I32 a, I32 b) { COSMIC_PARTS(I32, a.v[q] & b.v[q]); }
COSMIC_INLINE I32 operator|(I32 a, I32 b) { COSMIC_PARTS(I32, a.v[q] | b.v[q]); }
COSMIC_INLINE I32 operator^(I32 a, I32 b) { COSMIC_PARTS(I32, a.v[q] ^ b.v[q]); }
template <int N> COSMIC_INLINE I32 shift_right_signed(I32 a) { COSMIC_PARTS(I32, a.v[q] >> N); }
COSMIC_INLINE I32 upper_halves(I32 a, I32 b) { // a's upper 16 bits below those of b
  COSMIC_PARTS(I32, (I32::Part)(((Unsigned)a.v[q] >> 16) | ((Unsigned)b.v[q] & 0xffff0000u)));
}
COSMIC_INLINE I32 shift_left(I32 a, int n) {
  COSMIC_PARTS(I32, (I32::Part)((Unsigned)a.v[q] << n));
}
COSMIC_INLINE I32 shift_right(I32 a, int n) { // logical
  COSMIC_PARTS(I32, (I32::Part)((Unsigned)a.v[q] >> n));
}
template <int N> COSMIC_INLINE I32 shift_left(I32 a) { return shift_left(a, N); }
template <int N> COSMIC_INLINE I32 shift_right(I32 a) { return shift_right(a, N); }
COSMIC_INLINE I32 zero_where_zero(I32 a, I32 x) { // x where a > 0, 0 where a is 0; a is not below
  COSMIC_PARTS(I32, x.v[q] & (a.v[q] != 0));
}
COSMIC_INLINE I32 one_more_where_greater(F32 a, F32 b, I32 x) { // x + 1 where a > b, else x
  COSMIC_PARTS(I32, x.v[q] - (I32::Part)(a.v[q] > b.v[q]));
}
COSMIC_INLINE I32 where_nan(F32 a, I32 x, I32 y) { // x where a is a NaN, else y
  const I32 magnitude = as_int(a) & I32::splat(0x7fffffff);
  return where_greater(magnitude, I32::splat(0x7f800000), x, y);
}
COSMIC_INLINE F32 min(F32 a, F32 b) { return where_greater(b, a, a, b); } // of finite numbers
COSMIC_INLINE F32 max(F32 a, F32 b) { return where_greater(a, b, a, b); }
COSMIC_INLINE I32 max(I32 a, I32 b) { return where_greater(a, b, a, b); }
COSMIC_INLINE I32 unsigned_max(I32 a, I32 b) {
  COSMIC_PARTS(I32, (Unsigned)a.v[q] > (Unsigned)b.v[q] ? a.v[q] : b.v[q]);
}
COSMIC_INLINE I32 unsigned_min(I32 a, I32 b) {
  COSMIC_PARTS(I32, (Unsigned)a.v[q] < (Unsigned)b.v[q] ? a.v[q] : b.v[q]);
}
COSMIC_INLINE F32 to_float(I32 a) { COSMIC_PARTS(F32, __builtin_convertvector(a.v[q], F32::Part)); }

// Lane by lane, from memory.
constexpr bool kLookupIsDear = true;             // next to a conversion from integers
COSMIC_INLINE F32 lookup(F32 table, I32 index) { // by the low four bits
  float values[kLanes], found[kLanes];
  int32_t at[kLanes];
  table.store(values);
  (index & I32::splat(15)).store(at);
  for (int k = 0; k < kLanes; ++k) found[k] = values[at[k]];
  return F32::load(found);
}
COSMIC_INLINE F32 lookup_periodic(F32 table, I32 index) { return lookup(table, index); }
COSMIC_INLINE uint32_t reduce_unsigned_max(I32 a) {
  uint32_t lanes[kLanes], out = 0;
  a.store((int32_t *)lanes);
  for (int k = 0; k < kLanes; ++k) out = lanes[k] > out ? lanes[k] : out;
  return out;
}
COSMIC_INLINE uint32_t reduce_unsigned_min(I32 a) {
  uint32_t lanes[kLanes], out = 0xffffffffu;
  a.store((int32_t *)lanes);
  for (int k = 0; k < kLanes; ++k) out = lanes[k] < out ? lanes[k] : out;
  return out;
}
COSMIC_INLINE float reduce_add(F32 a) { // lanes 8, 4, 2, 1 apart
  float lanes[kLanes];
  a.store(lanes);
  for (int apart = kLanes / 2; apart; apart /= 2)
    for (int k = 0; k < apart; ++k) lanes[k] += lanes[k + apart];
  return lanes[0];
}

COSMIC_INLINE F32 abs(F32 a) { return as_float(as_int(a) & I32::splat(0x7fffffff)); }
COSMIC_INLINE F32 sqrt(F32 a) {
  COSMIC_PARTS(F32, (F32::Part{__builtin_sqrtf(a.v[q][0]), __builtin_sqrtf(a.v[q][1]),
                               __builtin_sqrtf(a.v[q][2]), __builtin_sqrtf(a.v[q][3])}));
}

COSMIC_INLINE I32 load_u8(const uint8_t *from) {
  int32_t lanes[kLanes];
  for (int k = 0; k < kLanes; ++k) lanes[k] = from[k];
  return I32::load(lanes);
}
COSMIC_INLINE void store_u8(uint8_t *to, I32 a) {
  int32_t lanes[kLanes];
  a.store(lanes);
  for (int k = 0; k < kLanes; ++k) to[k] = (uint8_t)lanes[k];
}
COSMIC_INLINE I32 load_u16(const uint16_t *from) {
  int32_t lanes[kLanes];
  for (int k = 0; k < kLanes; ++k) lanes[k] = from[k];
  return I32::load(lanes);
}
COSMIC_INLINE void store_u16(uint16_t *to, I32 a) {
  int32_t lanes[kLanes];
  a.store(lanes);
  for (int k = 0; k < kLanes; ++k) to[k] = (uint16_t)lanes[k];
}

COSMIC_INLINE float half_to_float(uint16_t h) {
  const uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = (h >> 10) & 31;
  uint32_t mantissa = h & 0x3ff, bits;
  if (exponent == 31) {
    bits = sign | 0x7f800000 | (mantissa << 13) | (mantissa ? 0x400000 : 0);
  } else if (exponent) {
    bits = sign | ((exponent + 112) << 23) | (mantissa << 13);
  } else if (mantissa) {
    int shift = 0;
    while (!(mantissa & 0x400)) mantissa <<= 1, ++shift;
    bits = sign | ((uint32_t)(113 - shift) << 23) | ((mantissa & 0x3ff) << 13);
  } else {
    bits = sign;
  }
  float out;
  __builtin_memcpy(&out, &bits, 4);
  return out;
}

COSMIC_INLINE uint16_t float_to_half(float x) { // to nearest, ties to even
  uint32_t bits;
  __builtin_memcpy(&bits, &x, 4);
  const uint32_t sign = (bits >> 16) & 0x8000, magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00 | ((magnitude >> 13) & 0x3ff);
  if (magnitude >= 0x477ff000) return sign | 0x7c00; // rounds past 65504
  if (magnitude < 0x33000001) return sign;           // at most half of the smallest subnormal
  const int exponent = (int)(magnitude >> 23) - 112;
  const uint32_t mantissa = (magnitude & 0x7fffff) | 0x800000;
  const int drop = exponent > 0 ? 13 : 14 - exponent;
  const uint32_t kept = mantissa >> drop, rest = mantissa & ((1u << drop) - 1);
  const uint32_t half = 1u << (drop - 1);
  const uint32_t rounded = kept + (rest > half || (rest == half && (kept & 1)));
  // a carry out of the mantissa moves into the exponent by itself
  return sign | (exponent > 0 ? rounded + ((uint32_t)(exponent - 1) << 10) : rounded);
}

COSMIC_INLINE F32 load_f16(const uint16_t *from) {
  float lanes[kLanes];
  for (int k = 0; k < kLanes; ++k) lanes[k] = half_to_float(from[k]);
  return F32::load(lanes);
}
COSMIC_INLINE void store_f16(uint16_t *to, F32 a) {
  float lanes[kLanes];
  a.store(lanes);
  for (int k = 0; k < kLanes; ++k) to[k] = float_to_half(lanes[k]);
}

} // namespace cosmic::COSMIC_TARGET
