// 16 lanes as four 128-bit NEON registers (AArch64). Untested on hardware.
#pragma once

#include <arm_neon.h>

#include <cstdint>

namespace cosmic::COSMIC_TARGET {

struct F32 {
  float32x4_t v[4];

  template <class Value> COSMIC_METHOD static F32 of(Value value) {
    return {{value(Number<0>{}), value(Number<1>{}), value(Number<2>{}), value(Number<3>{})}};
  }

  COSMIC_METHOD static F32 load(const float *from) {
    return {{vld1q_f32(from), vld1q_f32(from + 4), vld1q_f32(from + 8), vld1q_f32(from + 12)}};
  }
  COSMIC_METHOD static F32 splat(float x) {
    const float32x4_t q = vdupq_n_f32(x);
    return {{q, q, q, q}};
  }
  COSMIC_METHOD void store(float *to) const {
    for (int k = 0; k < 4; ++k) vst1q_f32(to + 4 * k, v[k]);
  }
};

struct I32 {
  int32x4_t v[4];

  template <class Value> COSMIC_METHOD static I32 of(Value value) {
    return {{value(Number<0>{}), value(Number<1>{}), value(Number<2>{}), value(Number<3>{})}};
  }

  COSMIC_METHOD static I32 load(const int32_t *from) {
    return {{vld1q_s32(from), vld1q_s32(from + 4), vld1q_s32(from + 8), vld1q_s32(from + 12)}};
  }
  COSMIC_METHOD static I32 splat(int32_t x) {
    const int32x4_t q = vdupq_n_s32(x);
    return {{q, q, q, q}};
  }
  COSMIC_METHOD void store(int32_t *to) const {
    for (int k = 0; k < 4; ++k) vst1q_s32(to + 4 * k, v[k]);
  }
};

COSMIC_INLINE F32 operator+(F32 a, F32 b) { COSMIC_PARTS(F32, vaddq_f32(a.v[q], b.v[q])); }
COSMIC_INLINE F32 operator-(F32 a, F32 b) { COSMIC_PARTS(F32, vsubq_f32(a.v[q], b.v[q])); }
COSMIC_INLINE F32 operator*(F32 a, F32 b) { COSMIC_PARTS(F32, vmulq_f32(a.v[q], b.v[q])); }
COSMIC_INLINE F32 operator/(F32 a, F32 b) { COSMIC_PARTS(F32, vdivq_f32(a.v[q], b.v[q])); }
COSMIC_INLINE F32 sqrt(F32 a) { COSMIC_PARTS(F32, vsqrtq_f32(a.v[q])); }
COSMIC_INLINE F32 min(F32 a, F32 b) { COSMIC_PARTS(F32, vminq_f32(a.v[q], b.v[q])); } // finite
COSMIC_INLINE F32 max(F32 a, F32 b) { COSMIC_PARTS(F32, vmaxq_f32(a.v[q], b.v[q])); }
COSMIC_INLINE F32 abs(F32 a) { COSMIC_PARTS(F32, vabsq_f32(a.v[q])); }
COSMIC_INLINE F32 where_greater(F32 a, F32 b, F32 x, F32 y) {
  COSMIC_PARTS(F32, vbslq_f32(vcgtq_f32(a.v[q], b.v[q]), x.v[q], y.v[q]));
}

COSMIC_INLINE I32 operator+(I32 a, I32 b) { COSMIC_PARTS(I32, vaddq_s32(a.v[q], b.v[q])); }
COSMIC_INLINE I32 operator-(I32 a, I32 b) { COSMIC_PARTS(I32, vsubq_s32(a.v[q], b.v[q])); }
COSMIC_INLINE I32 operator&(I32 a, I32 b) { COSMIC_PARTS(I32, vandq_s32(a.v[q], b.v[q])); }
COSMIC_INLINE I32 operator|(I32 a, I32 b) { COSMIC_PARTS(I32, vorrq_s32(a.v[q], b.v[q])); }
COSMIC_INLINE I32 operator^(I32 a, I32 b) { COSMIC_PARTS(I32, veorq_s32(a.v[q], b.v[q])); }
template <int N> COSMIC_INLINE I32 shift_left(I32 a) { COSMIC_PARTS(I32, vshlq_n_s32(a.v[q], N)); }
template <int N> COSMIC_INLINE I32 shift_right(I32 a) { // logical
  COSMIC_PARTS(I32, vreinterpretq_s32_u32(vshrq_n_u32(vreinterpretq_u32_s32(a.v[q]), N)));
}
template <int N> COSMIC_INLINE I32 shift_right_signed(I32 a) {
  COSMIC_PARTS(I32, vshrq_n_s32(a.v[q], N));
}
COSMIC_INLINE I32 upper_halves(I32 a, I32 b) { // a's upper 16 bits below those of b
  COSMIC_PARTS(I32, vreinterpretq_s32_s16(
                        vtrn2q_s16(vreinterpretq_s16_s32(a.v[q]), vreinterpretq_s16_s32(b.v[q]))));
}
COSMIC_INLINE I32 shift_left(I32 a, int n) { COSMIC_PARTS(I32, vshlq_s32(a.v[q], vdupq_n_s32(n))); }
COSMIC_INLINE I32 shift_right(I32 a, int n) {
  COSMIC_PARTS(I32,
               vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(a.v[q]), vdupq_n_s32(-n))));
}
COSMIC_INLINE I32 max(I32 a, I32 b) { COSMIC_PARTS(I32, vmaxq_s32(a.v[q], b.v[q])); }
COSMIC_INLINE I32 unsigned_max(I32 a, I32 b) {
  COSMIC_PARTS(I32, vreinterpretq_s32_u32(
                        vmaxq_u32(vreinterpretq_u32_s32(a.v[q]), vreinterpretq_u32_s32(b.v[q]))));
}
COSMIC_INLINE I32 unsigned_min(I32 a, I32 b) {
  COSMIC_PARTS(I32, vreinterpretq_s32_u32(
                        vminq_u32(vreinterpretq_u32_s32(a.v[q]), vreinterpretq_u32_s32(b.v[q]))));
}
COSMIC_INLINE I32 where_greater(I32 a, I32 b, I32 x, I32 y) {
  COSMIC_PARTS(I32, vbslq_s32(vcgtq_s32(a.v[q], b.v[q]), x.v[q], y.v[q]));
}
COSMIC_INLINE I32 zero_where_zero(I32 a, I32 x) { // x where a > 0, 0 where a is 0; a is not below
  COSMIC_PARTS(I32, vandq_s32(x.v[q], vreinterpretq_s32_u32(vtstq_s32(a.v[q], a.v[q]))));
}
COSMIC_INLINE I32 one_more_where_greater(F32 a, F32 b, I32 x) { // x + 1 where a > b, else x
  COSMIC_PARTS(I32, vsubq_s32(x.v[q], vreinterpretq_s32_u32(vcgtq_f32(a.v[q], b.v[q]))));
}
COSMIC_INLINE I32 where_nan(F32 a, I32 x, I32 y) { // x where a is a NaN, else y
  COSMIC_PARTS(I32, vbslq_s32(vceqq_f32(a.v[q], a.v[q]), y.v[q], x.v[q]));
}
COSMIC_INLINE F32 as_float(I32 a) { COSMIC_PARTS(F32, vreinterpretq_f32_s32(a.v[q])); }
COSMIC_INLINE I32 as_int(F32 a) { COSMIC_PARTS(I32, vreinterpretq_s32_f32(a.v[q])); }

COSMIC_INLINE F32 to_float(I32 a) { COSMIC_PARTS(F32, vcvtq_f32_s32(a.v[q])); }
constexpr bool kLookupIsDear = true;             // next to a conversion from integers
COSMIC_INLINE F32 lookup(F32 table, I32 index) { // by the low four bits
  uint8x16x4_t bytes;
  for (int q = 0; q < 4; ++q) bytes.val[q] = vreinterpretq_u8_f32(table.v[q]);
  const uint32x4_t spread = vdupq_n_u32(0x04040404), inside = vdupq_n_u32(0x03020100);
  F32 out;
  for (int q = 0; q < 4; ++q) {
    const uint32x4_t code = vandq_u32(vreinterpretq_u32_s32(index.v[q]), vdupq_n_u32(15));
    const uint32x4_t at = vaddq_u32(vmulq_u32(code, spread), inside); // of the four bytes
    out.v[q] = vreinterpretq_f32_u8(vqtbl4q_u8(bytes, vreinterpretq_u8_u32(at)));
  }
  return out;
}
COSMIC_INLINE F32 lookup_periodic(F32 table, I32 index) { return lookup(table, index); }

COSMIC_INLINE uint32_t reduce_unsigned_max(I32 a) {
  const I32 x = unsigned_max(a, {{a.v[2], a.v[3], a.v[0], a.v[1]}});
  return vmaxvq_u32(vmaxq_u32(vreinterpretq_u32_s32(x.v[0]), vreinterpretq_u32_s32(x.v[1])));
}
COSMIC_INLINE uint32_t reduce_unsigned_min(I32 a) {
  const I32 x = unsigned_min(a, {{a.v[2], a.v[3], a.v[0], a.v[1]}});
  return vminvq_u32(vminq_u32(vreinterpretq_u32_s32(x.v[0]), vreinterpretq_u32_s32(x.v[1])));
}
COSMIC_INLINE float reduce_add(F32 a) { // lanes 8, 4, 2, 1 apart
  const float32x4_t x = vaddq_f32(vaddq_f32(a.v[0], a.v[2]), vaddq_f32(a.v[1], a.v[3]));
  const float32x2_t y = vadd_f32(vget_low_f32(x), vget_high_f32(x));
  return vget_lane_f32(y, 0) + vget_lane_f32(y, 1);
}

COSMIC_INLINE I32 load_u8(const uint8_t *from) {
  const uint8x16_t b = vld1q_u8(from);
  const uint16x8_t lo = vmovl_u8(vget_low_u8(b)), hi = vmovl_u8(vget_high_u8(b));
  return {{vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(lo))),
           vreinterpretq_s32_u32(vmovl_u16(vget_high_u16(lo))),
           vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(hi))),
           vreinterpretq_s32_u32(vmovl_u16(vget_high_u16(hi)))}};
}
COSMIC_INLINE void store_u8(uint8_t *to, I32 a) { // lanes hold 0..255
  uint16x4_t h[4];
  for (int q = 0; q < 4; ++q) h[q] = vmovn_u32(vreinterpretq_u32_s32(a.v[q]));
  vst1q_u8(to,
           vcombine_u8(vmovn_u16(vcombine_u16(h[0], h[1])), vmovn_u16(vcombine_u16(h[2], h[3]))));
}
COSMIC_INLINE I32 load_u16(const uint16_t *from) {
  COSMIC_PARTS(I32, vreinterpretq_s32_u32(vmovl_u16(vld1_u16(from + 4 * q))));
}
COSMIC_INLINE void store_u16(uint16_t *to, I32 a) { // lanes hold 0..65535
  for (int q = 0; q < 4; ++q) vst1_u16(to + 4 * q, vmovn_u32(vreinterpretq_u32_s32(a.v[q])));
}
COSMIC_INLINE F32 load_f16(const uint16_t *from) {
  COSMIC_PARTS(F32, vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(from + 4 * q))));
}
COSMIC_INLINE void store_f16(uint16_t *to, F32 a) {
  for (int q = 0; q < 4; ++q) vst1_u16(to + 4 * q, vreinterpret_u16_f16(vcvt_f16_f32(a.v[q])));
}

} // namespace cosmic::COSMIC_TARGET
