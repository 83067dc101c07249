// 16 lanes as four 128-bit NEON registers (AArch64). Untested on hardware.
#pragma once

#include <arm_neon.h>

#include <cstdint>

namespace cosmic::COSMIC_TARGET {

struct F32 {
  float32x4_t v[4];

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

  COSMIC_METHOD static I32 load(const int32_t *from) {
    return {{vld1q_s32(from), vld1q_s32(from + 4), vld1q_s32(from + 8), vld1q_s32(from + 12)}};
  }
  COSMIC_METHOD static I32 splat(int32_t x) {
    const int32x4_t q = vdupq_n_s32(x);
    return {{q, q, q, q}};
  }
};

// One expression a quarter: q counts the four registers.
#define COSMIC_QUARTERS(type, expression)                                                          \
  type out;                                                                                        \
  for (int q = 0; q < 4; ++q) out.v[q] = expression;                                               \
  return out

COSMIC_INLINE F32 operator+(F32 a, F32 b) { COSMIC_QUARTERS(F32, vaddq_f32(a.v[q], b.v[q])); }
COSMIC_INLINE F32 operator-(F32 a, F32 b) { COSMIC_QUARTERS(F32, vsubq_f32(a.v[q], b.v[q])); }
COSMIC_INLINE F32 operator*(F32 a, F32 b) { COSMIC_QUARTERS(F32, vmulq_f32(a.v[q], b.v[q])); }
COSMIC_INLINE F32 operator/(F32 a, F32 b) { COSMIC_QUARTERS(F32, vdivq_f32(a.v[q], b.v[q])); }
COSMIC_INLINE F32 sqrt(F32 a) { COSMIC_QUARTERS(F32, vsqrtq_f32(a.v[q])); }
COSMIC_INLINE F32 abs(F32 a) { COSMIC_QUARTERS(F32, vabsq_f32(a.v[q])); }
COSMIC_INLINE F32 where_greater(F32 a, F32 b, F32 x, F32 y) {
  COSMIC_QUARTERS(F32, vbslq_f32(vcgtq_f32(a.v[q], b.v[q]), x.v[q], y.v[q]));
}

COSMIC_INLINE I32 operator+(I32 a, I32 b) { COSMIC_QUARTERS(I32, vaddq_s32(a.v[q], b.v[q])); }
COSMIC_INLINE I32 operator&(I32 a, I32 b) { COSMIC_QUARTERS(I32, vandq_s32(a.v[q], b.v[q])); }
COSMIC_INLINE I32 operator|(I32 a, I32 b) { COSMIC_QUARTERS(I32, vorrq_s32(a.v[q], b.v[q])); }
template <int N> COSMIC_INLINE I32 shift_left(I32 a) {
  COSMIC_QUARTERS(I32, vshlq_n_s32(a.v[q], N));
}
template <int N> COSMIC_INLINE I32 shift_right(I32 a) { // logical
  COSMIC_QUARTERS(I32, vreinterpretq_s32_u32(vshrq_n_u32(vreinterpretq_u32_s32(a.v[q]), N)));
}
COSMIC_INLINE I32 where_greater(I32 a, I32 b, I32 x, I32 y) {
  COSMIC_QUARTERS(I32, vbslq_s32(vcgtq_s32(a.v[q], b.v[q]), x.v[q], y.v[q]));
}
COSMIC_INLINE F32 as_float(I32 a) { COSMIC_QUARTERS(F32, vreinterpretq_f32_s32(a.v[q])); }
COSMIC_INLINE I32 as_int(F32 a) { COSMIC_QUARTERS(I32, vreinterpretq_s32_f32(a.v[q])); }

COSMIC_INLINE I32 load_u16(const uint16_t *from) {
  COSMIC_QUARTERS(I32, vreinterpretq_s32_u32(vmovl_u16(vld1_u16(from + 4 * q))));
}
COSMIC_INLINE void store_u16(uint16_t *to, I32 a) { // lanes hold 0..65535
  for (int q = 0; q < 4; ++q) vst1_u16(to + 4 * q, vmovn_u32(vreinterpretq_u32_s32(a.v[q])));
}
COSMIC_INLINE F32 load_f16(const uint16_t *from) {
  COSMIC_QUARTERS(F32, vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(from + 4 * q))));
}
COSMIC_INLINE void store_f16(uint16_t *to, F32 a) {
  for (int q = 0; q < 4; ++q) vst1_u16(to + 4 * q, vreinterpret_u16_f16(vcvt_f16_f32(a.v[q])));
}

#undef COSMIC_QUARTERS

} // namespace cosmic::COSMIC_TARGET
