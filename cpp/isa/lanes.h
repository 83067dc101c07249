// The 16-lane logical vector. One translation unit is compiled per ISA with COSMIC_TARGET set to
// the ISA's name: everything here lives in that namespace, so that no function compiled for a wide
// ISA can be picked by the linker for a narrow one. Only IEEE operations whose result does not
// depend on the ISA: add, subtract, multiply, divide, square root, compare; no fused multiply-add.
#pragma once

#include <cstdint>

#ifndef COSMIC_TARGET
#error "compile this file through a kernels target: COSMIC_TARGET names the ISA"
#endif

// Everything between a load and a store is inlined, so that values stay in registers: functions,
// methods and lambdas. What is called instead is so on purpose.
#define COSMIC_METHOD inline __attribute__((always_inline))
#define COSMIC_INLINE static COSMIC_METHOD
#define COSMIC_LAMBDA __attribute__((always_inline))
#define COSMIC_CALL __attribute__((noinline))

#include "isa/lanes_generic.h"
#if defined(COSMIC_LANES_AVX512)
#include "isa/lanes_avx512.h"
#elif defined(COSMIC_LANES_AVX2)
#include "isa/lanes_avx2.h"
#elif defined(COSMIC_LANES_NEON)
#include "isa/lanes_neon.h"
#else
#include "isa/lanes_scalar.h"
#endif

namespace cosmic::COSMIC_TARGET {

// Whether a combination is compiled as a whole. On the baseline its parts are called, which makes
// less than a tenth of the code.
#if defined(COSMIC_LANES_AVX512) || defined(COSMIC_LANES_AVX2) || defined(COSMIC_LANES_NEON)
constexpr bool kInlining = true;
#else
constexpr bool kInlining = false;
#endif

// Lanes of a real type: f32 on the ISA's own registers, f64 through the compiler's vectors.
template <class Real> struct LanesOf;
template <> struct LanesOf<float> {
  using type = F32;
};
template <> struct LanesOf<double> {
  using type = F64;
};
template <class Real> using Lanes = typename LanesOf<Real>::type;

} // namespace cosmic::COSMIC_TARGET
