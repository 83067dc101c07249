// 16 lanes as registers of the compiler's own vector type: what the target has for doubles, and for
// all types where it has nothing better. A vector type wider than a register compiles to much more
// code, and takes long.
#pragma once

#include <cstdint>

#if defined(COSMIC_LANES_AVX512) || defined(COSMIC_LANES_AVX2)
#include <immintrin.h>
#endif

#include "core/types.h"

namespace cosmic::COSMIC_TARGET {

#if defined(COSMIC_LANES_AVX512)
constexpr int kRegisterBytes = 64;
#elif defined(COSMIC_LANES_AVX2)
constexpr int kRegisterBytes = 32;
#else
constexpr int kRegisterBytes = 16;
#endif

// One expression a register, whose number is q. No loop: registers in an array that a loop walks go
// through memory.
#define COSMIC_PARTS(Type, expression)                                                             \
  return Type::of([&](auto part) __attribute__((always_inline)) {                                  \
    [[maybe_unused]] constexpr int q = decltype(part)::value;                                      \
    return expression;                                                                             \
  })

template <int kValue> struct Number {
  static constexpr int value = kValue;
};

template <class Part, class T> COSMIC_INLINE Part part_from(const T *from) {
  Part out;
  __builtin_memcpy(&out, from, sizeof(out));
  return out;
}

template <class T> struct GenericLanes {
  static constexpr int kWidth = kRegisterBytes / (int)sizeof(T), kParts = kLanes / kWidth;
  typedef T Part __attribute__((vector_size(kRegisterBytes)));
  Part v[kParts];

  // From every register's number to its value.
  template <class Value> COSMIC_METHOD static GenericLanes of(Value value) {
    if constexpr (kParts == 1) return {{value(Number<0>{})}};
    if constexpr (kParts == 2) return {{value(Number<0>{}), value(Number<1>{})}};
    if constexpr (kParts == 4)
      return {{value(Number<0>{}), value(Number<1>{}), value(Number<2>{}), value(Number<3>{})}};
    if constexpr (kParts == 8)
      return {{value(Number<0>{}), value(Number<1>{}), value(Number<2>{}), value(Number<3>{}),
               value(Number<4>{}), value(Number<5>{}), value(Number<6>{}), value(Number<7>{})}};
  }
  COSMIC_METHOD static GenericLanes load(const T *from);
  COSMIC_METHOD static GenericLanes splat(T x);
  COSMIC_METHOD void store(T *to) const {
    for (int q = 0; q < kParts; ++q) __builtin_memcpy(to + q * kWidth, &v[q], sizeof(Part));
  }
};

using F64 = GenericLanes<double>;

template <class T> COSMIC_METHOD GenericLanes<T> GenericLanes<T>::load(const T *from) {
  COSMIC_PARTS(GenericLanes, part_from<Part>(from + q * kWidth));
}
template <class T> COSMIC_METHOD GenericLanes<T> GenericLanes<T>::splat(T x) {
  COSMIC_PARTS(GenericLanes, Part{} + x);
}

template <class T> COSMIC_INLINE GenericLanes<T> operator+(GenericLanes<T> a, GenericLanes<T> b) {
  COSMIC_PARTS(GenericLanes<T>, a.v[q] + b.v[q]);
}
template <class T> COSMIC_INLINE GenericLanes<T> operator-(GenericLanes<T> a, GenericLanes<T> b) {
  COSMIC_PARTS(GenericLanes<T>, a.v[q] - b.v[q]);
}
template <class T> COSMIC_INLINE GenericLanes<T> operator*(GenericLanes<T> a, GenericLanes<T> b) {
  COSMIC_PARTS(GenericLanes<T>, a.v[q] * b.v[q]);
}
template <class T> COSMIC_INLINE GenericLanes<T> operator/(GenericLanes<T> a, GenericLanes<T> b) {
  COSMIC_PARTS(GenericLanes<T>, a.v[q] / b.v[q]);
}

// Has x computed here. What the compiler puts off until a block's end holds registers or memory
// until then; nothing, but on the ISA where that was measured.
template <class V> COSMIC_INLINE void settle(V & /*x*/) {}

// A number in all lanes that is one of its own from here on: else the compiler may take it from
// memory at each use.
template <class V> COSMIC_INLINE V held(V x) { return x; }
template <class T> COSMIC_INLINE T *held(T *x) {
  __asm__("" : "+r"(x));
  return x;
}

// x where a > b, else y
template <class T> COSMIC_INLINE GenericLanes<T>
where_greater(GenericLanes<T> a, GenericLanes<T> b, GenericLanes<T> x, GenericLanes<T> y) {
  COSMIC_PARTS(GenericLanes<T>, a.v[q] > b.v[q] ? x.v[q] : y.v[q]);
}

COSMIC_INLINE F64 abs(F64 a) {
  typedef int64_t Bits __attribute__((vector_size(kRegisterBytes)));
  COSMIC_PARTS(F64, (F64::Part)((Bits)a.v[q] & INT64_C(0x7fffffffffffffff)));
}

COSMIC_INLINE F64 sqrt(F64 a) {
#if defined(COSMIC_LANES_AVX512)
  COSMIC_PARTS(F64, (F64::Part)_mm512_sqrt_pd((__m512d)a.v[q]));
#elif defined(COSMIC_LANES_AVX2)
  COSMIC_PARTS(F64, (F64::Part)_mm256_sqrt_pd((__m256d)a.v[q]));
#else
  COSMIC_PARTS(F64, (F64::Part{__builtin_sqrt(a.v[q][0]), __builtin_sqrt(a.v[q][1])}));
#endif
}

} // namespace cosmic::COSMIC_TARGET
