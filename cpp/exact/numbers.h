// What rows and elements need of lanes beside isa/lanes.h: doubles' bits, conversions between float
// and double, sums in double, and groups at a row's end. A float takes two of AVX2's registers, a
// double four; the arithmetic is written once for both.
#pragma once

#include "codecs/random.h"
#include "isa/lanes.h"

namespace cosmic::COSMIC_TARGET {

using U64 = GenericLanes<uint64_t>;

COSMIC_INLINE U64 operator&(U64 a, U64 b) { COSMIC_PARTS(U64, a.v[q] & b.v[q]); }
COSMIC_INLINE U64 operator|(U64 a, U64 b) { COSMIC_PARTS(U64, a.v[q] | b.v[q]); }
COSMIC_INLINE U64 operator^(U64 a, U64 b) { COSMIC_PARTS(U64, a.v[q] ^ b.v[q]); }
template <int N> COSMIC_INLINE U64 shift_left(U64 a) { COSMIC_PARTS(U64, a.v[q] << N); }
template <int N> COSMIC_INLINE U64 shift_right(U64 a) { COSMIC_PARTS(U64, a.v[q] >> N); }
COSMIC_INLINE F64 as_float(U64 a) { COSMIC_PARTS(F64, (F64::Part)a.v[q]); }
COSMIC_INLINE U64 as_int(F64 a) { COSMIC_PARTS(U64, (U64::Part)a.v[q]); }

// The format of a real type: 2^23 and 2^52, to which a whole number can be added so that its bits
// are those of the sum, less those of the first.
template <class Real> struct Format;
template <> struct Format<float> {
  using Bits = I32;
  using Word = int32_t;
  static constexpr int kMantissa = 23, kBias = 127;
  static constexpr float kToInteger = 0x1.8p23f, kSmallestNormal = 0x1p-126f;
  static constexpr Word kToIntegerBits = 0x4b400000, kSign = INT32_MIN;
  static constexpr Word kUpperHalf = (Word)0xfffff000u; // so many bits that a square is exact
};
template <> struct Format<double> {
  using Bits = U64;
  using Word = uint64_t;
  static constexpr int kMantissa = 52, kBias = 1023;
  static constexpr double kToInteger = 0x1.8p52, kSmallestNormal = 0x1p-1022;
  static constexpr Word kToIntegerBits = 0x4338000000000000u, kSign = 0x8000000000000000u;
  static constexpr Word kUpperHalf = 0xfffffffff8000000u;
};
template <class Real> using Bits = typename Format<Real>::Bits;
template <class V> struct RealOf;
template <> struct RealOf<F32> {
  using type = float;
};
template <> struct RealOf<F64> {
  using type = double;
};

template <class V> COSMIC_INLINE V splat(double x) { return V::splat((typename RealOf<V>::type)x); }
template <class V> COSMIC_INLINE V sign_of(V x) { // 0 or -0
  using F = Format<typename RealOf<V>::type>;
  return as_float(as_int(x) & F::Bits::splat(F::kSign));
}
template <class V> COSMIC_INLINE V with_sign(V magnitude, V sign) {
  return as_float(as_int(magnitude) | as_int(sign));
}
template <class V> COSMIC_INLINE V negative(V x) {
  using F = Format<typename RealOf<V>::type>;
  return as_float(as_int(x) ^ F::Bits::splat(F::kSign));
}
template <class V> COSMIC_INLINE V negative_abs(V x) {
  using F = Format<typename RealOf<V>::type>;
  return as_float(as_int(x) | F::Bits::splat(F::kSign));
}
// a where a > b, else b, and a where a < b, else b: also of a NaN, and of two zeros.
#if defined(COSMIC_LANES_AVX512)
COSMIC_INLINE F32 greater(F32 a, F32 b) { return {_mm512_max_ps(a.v, b.v)}; }
COSMIC_INLINE F32 lesser(F32 a, F32 b) { return {_mm512_min_ps(a.v, b.v)}; }
#elif defined(COSMIC_LANES_AVX2)
COSMIC_INLINE F32 greater(F32 a, F32 b) {
  return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)};
}
COSMIC_INLINE F32 lesser(F32 a, F32 b) {
  return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)};
}
#else
COSMIC_INLINE F32 greater(F32 a, F32 b) { return where_greater(a, b, a, b); }
COSMIC_INLINE F32 lesser(F32 a, F32 b) { return where_greater(b, a, a, b); }
#endif
COSMIC_INLINE F64 greater(F64 a, F64 b) { return where_greater(a, b, a, b); }
COSMIC_INLINE F64 lesser(F64 a, F64 b) { return where_greater(b, a, a, b); }

// A NaN stays one.
template <class V> COSMIC_INLINE V at_most(V x, double most) { return lesser(splat<V>(most), x); }
template <class V> COSMIC_INLINE V at_least(V x, double least) {
  return greater(splat<V>(least), x);
}

#if defined(COSMIC_LANES_AVX512)
COSMIC_INLINE F64 widen(F32 a) {
  return {{(F64::Part)_mm512_cvtps_pd(_mm512_castps512_ps256(a.v)),
           (F64::Part)_mm512_cvtps_pd(_mm512_extractf32x8_ps(a.v, 1))}};
}
COSMIC_INLINE F32 narrow(F64 a) {
  const __m512 low = _mm512_castps256_ps512(_mm512_cvtpd_ps((__m512d)a.v[0]));
  return {_mm512_insertf32x8(low, _mm512_cvtpd_ps((__m512d)a.v[1]), 1)};
}
COSMIC_INLINE I32 multiply(I32 a, I32 b) { return {_mm512_mullo_epi32(a.v, b.v)}; }
#elif defined(COSMIC_LANES_AVX2)
COSMIC_INLINE F64 widen(F32 a) {
  return {{(F64::Part)_mm256_cvtps_pd(_mm256_castps256_ps128(a.lo)),
           (F64::Part)_mm256_cvtps_pd(_mm256_extractf128_ps(a.lo, 1)),
           (F64::Part)_mm256_cvtps_pd(_mm256_castps256_ps128(a.hi)),
           (F64::Part)_mm256_cvtps_pd(_mm256_extractf128_ps(a.hi, 1))}};
}
COSMIC_INLINE F32 narrow(F64 a) {
  return {_mm256_set_m128(_mm256_cvtpd_ps((__m256d)a.v[1]), _mm256_cvtpd_ps((__m256d)a.v[0])),
          _mm256_set_m128(_mm256_cvtpd_ps((__m256d)a.v[3]), _mm256_cvtpd_ps((__m256d)a.v[2]))};
}
COSMIC_INLINE I32 multiply(I32 a, I32 b) {
  return {_mm256_mullo_epi32(a.lo, b.lo), _mm256_mullo_epi32(a.hi, b.hi)};
}
#elif defined(COSMIC_LANES_NEON)
COSMIC_INLINE F64 widen(F32 a) {
  return F64::of([&](auto part) COSMIC_LAMBDA {
    constexpr int q = decltype(part)::value;
    const float32x4_t x = a.v[q / 2];
    return (F64::Part)(q % 2 ? vcvt_high_f64_f32(x) : vcvt_f64_f32(vget_low_f32(x)));
  });
}
COSMIC_INLINE F32 narrow(F64 a) {
  COSMIC_PARTS(
      F32, vcvt_high_f32_f64(vcvt_f32_f64((float64x2_t)a.v[2 * q]), (float64x2_t)a.v[2 * q + 1]));
}
COSMIC_INLINE I32 multiply(I32 a, I32 b) { COSMIC_PARTS(I32, vmulq_s32(a.v[q], b.v[q])); }
#else
COSMIC_INLINE F64 widen(F32 a) {
  COSMIC_PARTS(F64, (F64::Part{a.v[q / 2][q % 2 * 2], a.v[q / 2][q % 2 * 2 + 1]}));
}
COSMIC_INLINE F32 narrow(F64 a) {
  COSMIC_PARTS(F32, (F32::Part{(float)a.v[2 * q][0], (float)a.v[2 * q][1], (float)a.v[2 * q + 1][0],
                               (float)a.v[2 * q + 1][1]}));
}
COSMIC_INLINE I32 multiply(I32 a, I32 b) {
  COSMIC_PARTS(I32, (I32::Part)((Unsigned)a.v[q] * (Unsigned)b.v[q]));
}
#endif
COSMIC_INLINE F64 widen(F64 a) { return a; }

template <class Real> COSMIC_INLINE Lanes<Real> narrow_to(F64 a) {
  if constexpr (sizeof(Real) == sizeof(double))
    return a;
  else
    return narrow(a);
}

template <class Real> COSMIC_INLINE Lanes<Real> numbers_of_lanes() {
  alignas(64) static const Real numbers[kLanes] = {0, 1, 2,  3,  4,  5,  6,  7,
                                                   8, 9, 10, 11, 12, 13, 14, 15};
  return Lanes<Real>::load(numbers);
}

// x in the first `count` lanes, `other` in the rest.
template <class V> COSMIC_INLINE V in_first(int64_t count, V x, V other) {
  using Real = typename RealOf<V>::type;
  return where_greater(V::splat((Real)count), numbers_of_lanes<Real>(), x, other);
}

// The lanes 8, 4, 2 and 1 apart, as everywhere. Calls, as all that is done once a row.
inline COSMIC_CALL double sum_in_memory(double *lanes) {
  for (int apart = kLanes / 2; apart; apart /= 2)
    for (int k = 0; k < apart; ++k) lanes[k] += lanes[k + apart];
  return lanes[0];
}
COSMIC_INLINE double sum_of(F64 a) {
  alignas(64) double lanes[kLanes];
  a.store(lanes);
  return sum_in_memory(lanes);
}
template <class Real> COSMIC_CALL Real greatest_in_memory(const Real *lanes) {
  Real most = lanes[0];
  for (int k = 1; k < kLanes; ++k) most = lanes[k] > most ? lanes[k] : most;
  return most;
}
template <class V> COSMIC_INLINE auto greatest_of(V a) { // NaNs left aside
  alignas(64) typename RealOf<V>::type lanes[kLanes];
  a.store(lanes);
  return greatest_in_memory(lanes);
}

// A group of 16 elements of a row, and what is left at its end.
struct WholeGroup {
  template <class Real>
  COSMIC_METHOD Lanes<Real> load(const Real *from, Real /*fill*/ = Real(0)) const {
    return Lanes<Real>::load(from);
  }
  template <class V, class Real> COSMIC_METHOD void store(V x, Real *to) const { x.store(to); }
  template <class V> COSMIC_METHOD V inside(V x) const { return x; } // 0 beyond the row's end
};
template <class Real>
COSMIC_CALL void fill_lanes(const Real *from, int64_t count, Real fill, Real *lanes) {
  for (int k = 0; k < kLanes; ++k) lanes[k] = k < count ? from[k] : fill;
}
template <class Real> COSMIC_CALL void take_lanes(const Real *lanes, int64_t count, Real *to) {
  for (int64_t k = 0; k < count; ++k) to[k] = lanes[k];
}
struct PartOfGroup {
  int64_t count;

  template <class Real>
  COSMIC_METHOD Lanes<Real> load(const Real *from, Real fill = Real(0)) const {
    alignas(64) Real lanes[kLanes];
    fill_lanes(from, count, fill, lanes);
    return Lanes<Real>::load(lanes);
  }
  template <class V, class Real> COSMIC_METHOD void store(V x, Real *to) const {
    alignas(64) Real lanes[kLanes];
    x.store(lanes);
    take_lanes(lanes, count, to);
  }
  template <class V> COSMIC_METHOD V inside(V x) const { return in_first(count, x, splat<V>(0)); }
};

// One of which only the first elements are seen; the others have memory, too.
struct VeiledGroup {
  int64_t count;

  template <class Real>
  COSMIC_METHOD Lanes<Real> load(const Real *from, Real fill = Real(0)) const {
    return in_first(count, Lanes<Real>::load(from), Lanes<Real>::splat(fill));
  }
  template <class V, class Real> COSMIC_METHOD void store(V x, Real *to) const { x.store(to); }
  template <class V> COSMIC_METHOD V inside(V x) const { return in_first(count, x, splat<V>(0)); }
};

// visit(first element, group) along a row.
template <class Visit> COSMIC_INLINE void for_each_group_of(int64_t count, Visit visit) {
  const int64_t whole = count / kLanes * kLanes;
  for (int64_t k = 0; k < whole; k += kLanes) visit(k, WholeGroup{});
  if (whole < count) visit(whole, PartOfGroup{count - whole});
}

} // namespace cosmic::COSMIC_TARGET
