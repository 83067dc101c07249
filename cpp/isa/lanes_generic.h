// 16 lanes as the compiler's own vector type: portable, lowered to whatever the target has.
#pragma once

#include <cstdint>

#if defined(COSMIC_LANES_AVX512) || defined(COSMIC_LANES_AVX2)
#include <immintrin.h>
#endif

#include "core/types.h"

namespace cosmic::COSMIC_TARGET {

template <class T> struct GenericLanes {
  typedef T Vector __attribute__((vector_size(sizeof(T) * kLanes)));
  Vector v;

  COSMIC_METHOD static GenericLanes load(const T *from) {
    GenericLanes out;
    __builtin_memcpy(&out.v, from, sizeof(out.v));
    return out;
  }
  COSMIC_METHOD static GenericLanes splat(T x) {
    Vector v = {};
    return {v + x};
  }
  COSMIC_METHOD void store(T *to) const { __builtin_memcpy(to, &v, sizeof(v)); }
};

using F64 = GenericLanes<double>;

template <class T> COSMIC_INLINE GenericLanes<T> operator+(GenericLanes<T> a, GenericLanes<T> b) {
  return {a.v + b.v};
}
template <class T> COSMIC_INLINE GenericLanes<T> operator-(GenericLanes<T> a, GenericLanes<T> b) {
  return {a.v - b.v};
}
template <class T> COSMIC_INLINE GenericLanes<T> operator*(GenericLanes<T> a, GenericLanes<T> b) {
  return {a.v * b.v};
}
template <class T> COSMIC_INLINE GenericLanes<T> operator/(GenericLanes<T> a, GenericLanes<T> b) {
  return {a.v / b.v};
}

// x where a > b, else y
template <class T> COSMIC_INLINE GenericLanes<T>
where_greater(GenericLanes<T> a, GenericLanes<T> b, GenericLanes<T> x, GenericLanes<T> y) {
  return {a.v > b.v ? x.v : y.v};
}

COSMIC_INLINE F64 abs(F64 a) {
  typedef int64_t Bits __attribute__((vector_size(128)));
  return {(F64::Vector)((Bits)a.v & INT64_C(0x7fffffffffffffff))};
}

COSMIC_INLINE F64 sqrt(F64 a) {
  F64 out;
#if defined(COSMIC_LANES_AVX512)
  for (int k = 0; k < 2; ++k) ((__m512d *)&out.v)[k] = _mm512_sqrt_pd(((__m512d *)&a.v)[k]);
#elif defined(COSMIC_LANES_AVX2)
  for (int k = 0; k < 4; ++k) ((__m256d *)&out.v)[k] = _mm256_sqrt_pd(((__m256d *)&a.v)[k]);
#else
  for (int k = 0; k < kLanes; ++k) out.v[k] = __builtin_sqrt(a.v[k]);
#endif
  return out;
}

} // namespace cosmic::COSMIC_TARGET
