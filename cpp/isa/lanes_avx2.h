// 16 lanes as two 256-bit registers.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace cosmic::COSMIC_TARGET {

struct F32 {
  __m256 lo, hi;

  COSMIC_METHOD static F32 load(const float *from) {
    return {_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)};
  }
  COSMIC_METHOD static F32 splat(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
  COSMIC_METHOD void store(float *to) const {
    _mm256_storeu_ps(to, lo);
    _mm256_storeu_ps(to + 8, hi);
  }
};

struct I32 {
  __m256i lo, hi;

  COSMIC_METHOD static I32 load(const int32_t *from) {
    return {_mm256_loadu_si256((const __m256i *)from),
            _mm256_loadu_si256((const __m256i *)(from + 8))};
  }
  COSMIC_METHOD static I32 splat(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
  COSMIC_METHOD void store(int32_t *to) const {
    _mm256_storeu_si256((__m256i *)to, lo);
    _mm256_storeu_si256((__m256i *)(to + 8), hi);
  }
};

COSMIC_INLINE F32 operator+(F32 a, F32 b) {
  return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)};
}
COSMIC_INLINE F32 operator-(F32 a, F32 b) {
  return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)};
}
COSMIC_INLINE F32 operator*(F32 a, F32 b) {
  return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)};
}
COSMIC_INLINE F32 operator/(F32 a, F32 b) {
  return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)};
}
COSMIC_INLINE void settle(F32 &x) { __asm__("" : "+x"(x.lo), "+x"(x.hi)); }
COSMIC_INLINE F32 held(F32 x) { // of a splat: one register for both halves
  __asm__("" : "+x"(x.lo));
  return {x.lo, x.lo};
}
COSMIC_INLINE F32 sqrt(F32 a) { return {_mm256_sqrt_ps(a.lo), _mm256_sqrt_ps(a.hi)}; }
COSMIC_INLINE F32 min(F32 a, F32 b) { // of finite numbers
  return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)};
}
COSMIC_INLINE F32 max(F32 a, F32 b) {
  return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)};
}
COSMIC_INLINE F32 where_greater(F32 a, F32 b, F32 x, F32 y) {
  return {_mm256_blendv_ps(y.lo, x.lo, _mm256_cmp_ps(a.lo, b.lo, _CMP_GT_OQ)),
          _mm256_blendv_ps(y.hi, x.hi, _mm256_cmp_ps(a.hi, b.hi, _CMP_GT_OQ))};
}

COSMIC_INLINE I32 operator+(I32 a, I32 b) {
  return {_mm256_add_epi32(a.lo, b.lo), _mm256_add_epi32(a.hi, b.hi)};
}
COSMIC_INLINE I32 operator-(I32 a, I32 b) {
  return {_mm256_sub_epi32(a.lo, b.lo), _mm256_sub_epi32(a.hi, b.hi)};
}
COSMIC_INLINE I32 operator&(I32 a, I32 b) {
  return {_mm256_and_si256(a.lo, b.lo), _mm256_and_si256(a.hi, b.hi)};
}
COSMIC_INLINE I32 operator|(I32 a, I32 b) {
  return {_mm256_or_si256(a.lo, b.lo), _mm256_or_si256(a.hi, b.hi)};
}
COSMIC_INLINE I32 operator^(I32 a, I32 b) {
  return {_mm256_xor_si256(a.lo, b.lo), _mm256_xor_si256(a.hi, b.hi)};
}
template <int N> COSMIC_INLINE I32 shift_left(I32 a) {
  return {_mm256_slli_epi32(a.lo, N), _mm256_slli_epi32(a.hi, N)};
}
template <int N> COSMIC_INLINE I32 shift_right(I32 a) { // logical
  return {_mm256_srli_epi32(a.lo, N), _mm256_srli_epi32(a.hi, N)};
}
template <int N> COSMIC_INLINE I32 shift_right_signed(I32 a) {
  return {_mm256_srai_epi32(a.lo, N), _mm256_srai_epi32(a.hi, N)};
}
COSMIC_INLINE I32 upper_halves(I32 a, I32 b) { // a's upper 16 bits below those of b
  return {_mm256_blend_epi16(_mm256_srli_epi32(a.lo, 16), b.lo, 0xaa),
          _mm256_blend_epi16(_mm256_srli_epi32(a.hi, 16), b.hi, 0xaa)};
}
COSMIC_INLINE I32 shift_left(I32 a, int n) {
  const __m128i count = _mm_cvtsi32_si128(n);
  return {_mm256_sll_epi32(a.lo, count), _mm256_sll_epi32(a.hi, count)};
}
COSMIC_INLINE I32 shift_right(I32 a, int n) {
  const __m128i count = _mm_cvtsi32_si128(n);
  return {_mm256_srl_epi32(a.lo, count), _mm256_srl_epi32(a.hi, count)};
}
COSMIC_INLINE I32 max(I32 a, I32 b) {
  return {_mm256_max_epi32(a.lo, b.lo), _mm256_max_epi32(a.hi, b.hi)};
}
COSMIC_INLINE I32 unsigned_max(I32 a, I32 b) {
  return {_mm256_max_epu32(a.lo, b.lo), _mm256_max_epu32(a.hi, b.hi)};
}
COSMIC_INLINE I32 unsigned_min(I32 a, I32 b) {
  return {_mm256_min_epu32(a.lo, b.lo), _mm256_min_epu32(a.hi, b.hi)};
}
COSMIC_INLINE I32 where_greater(I32 a, I32 b, I32 x, I32 y) {
  return {_mm256_blendv_epi8(y.lo, x.lo, _mm256_cmpgt_epi32(a.lo, b.lo)),
          _mm256_blendv_epi8(y.hi, x.hi, _mm256_cmpgt_epi32(a.hi, b.hi))};
}
COSMIC_INLINE I32 zero_where_zero(I32 a, I32 x) { // x where a > 0, 0 where a is 0; a is not below
  return {_mm256_sign_epi32(x.lo, a.lo), _mm256_sign_epi32(x.hi, a.hi)};
}
COSMIC_INLINE I32 one_more_where_greater(F32 a, F32 b, I32 x) { // x + 1 where a > b, else x
  return {_mm256_sub_epi32(x.lo, _mm256_castps_si256(_mm256_cmp_ps(a.lo, b.lo, _CMP_GT_OQ))),
          _mm256_sub_epi32(x.hi, _mm256_castps_si256(_mm256_cmp_ps(a.hi, b.hi, _CMP_GT_OQ)))};
}
COSMIC_INLINE __m256i where_nan_half(__m256 a, __m256i x, __m256i y) {
  const __m256 nan = _mm256_cmp_ps(a, a, _CMP_UNORD_Q);
  return _mm256_blendv_epi8(y, x, _mm256_castps_si256(nan));
}
COSMIC_INLINE I32 where_nan(F32 a, I32 x, I32 y) { // x where a is a NaN, else y
  return {where_nan_half(a.lo, x.lo, y.lo), where_nan_half(a.hi, x.hi, y.hi)};
}
COSMIC_INLINE F32 as_float(I32 a) { return {_mm256_castsi256_ps(a.lo), _mm256_castsi256_ps(a.hi)}; }
COSMIC_INLINE I32 as_int(F32 a) { return {_mm256_castps_si256(a.lo), _mm256_castps_si256(a.hi)}; }
COSMIC_INLINE F32 abs(F32 a) { return as_float(as_int(a) & I32::splat(0x7fffffff)); }

COSMIC_INLINE F32 to_float(I32 a) { return {_mm256_cvtepi32_ps(a.lo), _mm256_cvtepi32_ps(a.hi)}; }
constexpr bool kLookupIsDear = true; // next to a conversion from integers
COSMIC_INLINE __m256 lookup_half(F32 table, __m256i index) {
  const __m256i high = _mm256_slli_epi32(index, 28); // bit 3 to where a blend looks
  return _mm256_blendv_ps(_mm256_permutevar8x32_ps(table.lo, index),
                          _mm256_permutevar8x32_ps(table.hi, index), _mm256_castsi256_ps(high));
}
COSMIC_INLINE F32 lookup(F32 table, I32 index) { // by the low four bits
  return {lookup_half(table, index.lo), lookup_half(table, index.hi)};
}
COSMIC_INLINE F32 lookup_periodic(F32 table, I32 index) { // a table that repeats after 8
  return {_mm256_permutevar8x32_ps(table.lo, index.lo),
          _mm256_permutevar8x32_ps(table.lo, index.hi)};
}

COSMIC_INLINE uint32_t reduce_unsigned_max(I32 a) {
  const __m256i x = _mm256_max_epu32(a.lo, a.hi);
  __m128i y = _mm_max_epu32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
  y = _mm_max_epu32(y, _mm_shuffle_epi32(y, 0x4e));
  y = _mm_max_epu32(y, _mm_shuffle_epi32(y, 0xb1));
  return (uint32_t)_mm_cvtsi128_si32(y);
}
COSMIC_INLINE uint32_t reduce_unsigned_min(I32 a) {
  const __m256i x = _mm256_min_epu32(a.lo, a.hi);
  __m128i y = _mm_min_epu32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
  y = _mm_min_epu32(y, _mm_shuffle_epi32(y, 0x4e));
  y = _mm_min_epu32(y, _mm_shuffle_epi32(y, 0xb1));
  return (uint32_t)_mm_cvtsi128_si32(y);
}
COSMIC_INLINE float reduce_add(F32 a) { // lanes 8, 4, 2, 1 apart
  const __m256 x = _mm256_add_ps(a.lo, a.hi);
  __m128 y = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  y = _mm_add_ps(y, _mm_movehl_ps(y, y));
  return _mm_cvtss_f32(_mm_add_ss(y, _mm_movehdup_ps(y)));
}

COSMIC_INLINE I32 load_u8(const uint8_t *from) {
  return {_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)from)),
          _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(from + 8)))};
}
COSMIC_INLINE void store_u8(uint8_t *to, I32 a) { // lanes hold 0..255
  const __m256i words = _mm256_permute4x64_epi64(_mm256_packus_epi32(a.lo, a.hi), 0xd8);
  _mm_storeu_si128((__m128i *)to, _mm_packus_epi16(_mm256_castsi256_si128(words),
                                                   _mm256_extracti128_si256(words, 1)));
}
COSMIC_INLINE I32 load_u16(const uint16_t *from) {
  return {_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)from)),
          _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(from + 8)))};
}
COSMIC_INLINE void store_u16(uint16_t *to, I32 a) { // lanes hold 0..65535
  const __m256i packed = _mm256_packus_epi32(a.lo, a.hi);
  _mm256_storeu_si256((__m256i *)to, _mm256_permute4x64_epi64(packed, 0xd8));
}
COSMIC_INLINE F32 load_f16(const uint16_t *from) {
  return {_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)from)),
          _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(from + 8)))};
}
COSMIC_INLINE void store_f16(uint16_t *to, F32 a) {
  _mm_storeu_si128((__m128i *)to, _mm256_cvtps_ph(a.lo, _MM_FROUND_TO_NEAREST_INT));
  _mm_storeu_si128((__m128i *)(to + 8), _mm256_cvtps_ph(a.hi, _MM_FROUND_TO_NEAREST_INT));
}

} // namespace cosmic::COSMIC_TARGET
