// 16 lanes as one 512-bit register. AVX-512 F, BW, DQ and VL.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace cosmic::COSMIC_TARGET {

struct F32 {
  __m512 v;

  COSMIC_METHOD static F32 load(const float *from) { return {_mm512_loadu_ps(from)}; }
  COSMIC_METHOD static F32 splat(float x) { return {_mm512_set1_ps(x)}; }
  COSMIC_METHOD void store(float *to) const { _mm512_storeu_ps(to, v); }
};

struct I32 {
  __m512i v;

  COSMIC_METHOD static I32 load(const int32_t *from) { return {_mm512_loadu_si512(from)}; }
  COSMIC_METHOD static I32 splat(int32_t x) { return {_mm512_set1_epi32(x)}; }
  COSMIC_METHOD void store(int32_t *to) const { _mm512_storeu_si512(to, v); }
};

COSMIC_INLINE F32 operator+(F32 a, F32 b) { return {_mm512_add_ps(a.v, b.v)}; }
COSMIC_INLINE F32 operator-(F32 a, F32 b) { return {_mm512_sub_ps(a.v, b.v)}; }
COSMIC_INLINE F32 operator*(F32 a, F32 b) { return {_mm512_mul_ps(a.v, b.v)}; }
COSMIC_INLINE F32 operator/(F32 a, F32 b) { return {_mm512_div_ps(a.v, b.v)}; }
COSMIC_INLINE F32 held(F32 x) {
  __asm__("" : "+v"(x.v));
  return x;
}
COSMIC_INLINE F32 sqrt(F32 a) { return {_mm512_sqrt_ps(a.v)}; }
COSMIC_INLINE F32 min(F32 a, F32 b) { return {_mm512_min_ps(a.v, b.v)}; } // of finite numbers
COSMIC_INLINE F32 max(F32 a, F32 b) { return {_mm512_max_ps(a.v, b.v)}; }
COSMIC_INLINE F32 where_greater(F32 a, F32 b, F32 x, F32 y) {
  return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ), y.v, x.v)};
}

COSMIC_INLINE I32 operator+(I32 a, I32 b) { return {_mm512_add_epi32(a.v, b.v)}; }
COSMIC_INLINE I32 operator-(I32 a, I32 b) { return {_mm512_sub_epi32(a.v, b.v)}; }
COSMIC_INLINE I32 operator&(I32 a, I32 b) { return {_mm512_and_si512(a.v, b.v)}; }
COSMIC_INLINE I32 operator|(I32 a, I32 b) { return {_mm512_or_si512(a.v, b.v)}; }
COSMIC_INLINE I32 operator^(I32 a, I32 b) { return {_mm512_xor_si512(a.v, b.v)}; }
template <int N> COSMIC_INLINE I32 shift_left(I32 a) { return {_mm512_slli_epi32(a.v, N)}; }
template <int N> COSMIC_INLINE I32 shift_right(I32 a) { // logical
  return {_mm512_srli_epi32(a.v, N)};
}
template <int N> COSMIC_INLINE I32 shift_right_signed(I32 a) { return {_mm512_srai_epi32(a.v, N)}; }
COSMIC_INLINE I32 upper_halves(I32 a, I32 b) { // a's upper 16 bits below those of b
  return {_mm512_mask_blend_epi16(0xaaaaaaaau, _mm512_srli_epi32(a.v, 16), b.v)};
}
COSMIC_INLINE I32 shift_left(I32 a, int n) { return {_mm512_sll_epi32(a.v, _mm_cvtsi32_si128(n))}; }
COSMIC_INLINE I32 shift_right(I32 a, int n) {
  return {_mm512_srl_epi32(a.v, _mm_cvtsi32_si128(n))};
}
COSMIC_INLINE I32 max(I32 a, I32 b) { return {_mm512_max_epi32(a.v, b.v)}; }
COSMIC_INLINE I32 unsigned_max(I32 a, I32 b) { return {_mm512_max_epu32(a.v, b.v)}; }
COSMIC_INLINE I32 unsigned_min(I32 a, I32 b) { return {_mm512_min_epu32(a.v, b.v)}; }
COSMIC_INLINE I32 where_greater(I32 a, I32 b, I32 x, I32 y) {
  return {_mm512_mask_blend_epi32(_mm512_cmpgt_epi32_mask(a.v, b.v), y.v, x.v)};
}
COSMIC_INLINE I32 zero_where_zero(I32 a, I32 x) { // x where a > 0, 0 where a is 0; a is not below
  return {_mm512_maskz_mov_epi32(_mm512_test_epi32_mask(a.v, a.v), x.v)};
}
COSMIC_INLINE I32 one_more_where_greater(F32 a, F32 b, I32 x) { // x + 1 where a > b, else x
  const __mmask16 greater = _mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ);
  return {_mm512_mask_add_epi32(x.v, greater, x.v, _mm512_set1_epi32(1))};
}
COSMIC_INLINE I32 where_nan(F32 a, I32 x, I32 y) { // x where a is a NaN, else y
  return {_mm512_mask_blend_epi32(_mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q), y.v, x.v)};
}
COSMIC_INLINE F32 as_float(I32 a) { return {_mm512_castsi512_ps(a.v)}; }
COSMIC_INLINE I32 as_int(F32 a) { return {_mm512_castps_si512(a.v)}; }
COSMIC_INLINE F32 abs(F32 a) { return as_float(as_int(a) & I32::splat(0x7fffffff)); }

COSMIC_INLINE F32 to_float(I32 a) { return {_mm512_cvtepi32_ps(a.v)}; }
constexpr bool kLookupIsDear = false;            // next to a conversion from integers
COSMIC_INLINE F32 lookup(F32 table, I32 index) { // by the low four bits
  return {_mm512_permutexvar_ps(index.v, table.v)};
}
COSMIC_INLINE F32 lookup_periodic(F32 table, I32 index) { return lookup(table, index); }

COSMIC_INLINE uint32_t reduce_unsigned_max(I32 a) { return _mm512_reduce_max_epu32(a.v); }
COSMIC_INLINE uint32_t reduce_unsigned_min(I32 a) { return _mm512_reduce_min_epu32(a.v); }
COSMIC_INLINE float reduce_add(F32 a) { // lanes 8, 4, 2, 1 apart
  const __m256 x = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  __m128 y = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  y = _mm_add_ps(y, _mm_movehl_ps(y, y));
  return _mm_cvtss_f32(_mm_add_ss(y, _mm_movehdup_ps(y)));
}

COSMIC_INLINE I32 load_u8(const uint8_t *from) {
  return {_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)from))};
}
COSMIC_INLINE void store_u8(uint8_t *to, I32 a) { // lanes hold 0..255
  _mm_storeu_si128((__m128i *)to, _mm512_cvtepi32_epi8(a.v));
}
COSMIC_INLINE I32 load_u16(const uint16_t *from) {
  return {_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)from))};
}
COSMIC_INLINE void store_u16(uint16_t *to, I32 a) { // lanes hold 0..65535
  _mm256_storeu_si256((__m256i *)to, _mm512_cvtepi32_epi16(a.v));
}
COSMIC_INLINE F32 load_f16(const uint16_t *from) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)from))};
}
COSMIC_INLINE void store_f16(uint16_t *to, F32 a) {
  _mm256_storeu_si256((__m256i *)to, _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT));
}

} // namespace cosmic::COSMIC_TARGET
