// Exponentials and logarithms from IEEE operations alone, in an order that is written down: the
// same bits on every ISA and with every C library. A block waits for them: polynomials are summed
// in pairs, not one term after the other.
#pragma once

#include "codecs/context.h"

namespace cosmic::COSMIC_TARGET {

// a + b x.
COSMIC_INLINE F32 line(float a, float b, F32 x) { return F32::splat(b) * x + F32::splat(a); }

// (2^f - 1) / f on [-1/2, 1/2], to a relative 7e-9.
COSMIC_INLINE F32 exp2_less_1_over(F32 f) {
  const F32 f2 = f * f;
  const F32 upper = line(0.00133908669f, 0.000154697351f, f) * f2;
  return (upper + line(0.0555035696f, 0.00961803086f, f)) * f2 +
         line(0.693147182f, 0.240226507f, f);
}

COSMIC_INLINE float like(float /*example*/, float x) { return x; }
COSMIC_INLINE F32 like(F32 /*example*/, float x) { return F32::splat(x); }

// A number of octaves as two floats, a multiple of 2^-12 and the rest; below 2^10.
template <class Real> struct OctavesOf {
  Real coarse, fine;

  // x times the sum of two factors, the first of 12 bits: exact, but for the last place of what has
  // more than 12 bits itself.
  COSMIC_METHOD static OctavesOf of(Real x, float factor, float rest) {
    const Real grid = like(x, 0x1.8p11f); // what is added to it becomes a multiple of 2^-12
    const Real product = x * like(x, factor), coarse = (product + grid) - grid;
    return {coarse, (product - coarse) + x * like(x, rest)};
  }
};
using Octaves = OctavesOf<float>;
using LaneOctaves = OctavesOf<F32>;

constexpr float kToInteger = 0x1.8p23f; // what is added to it is rounded

// 2^x - 1 for 0 <= x < 127, to a few units of the last place however small x is.
COSMIC_INLINE F32 exp2_less_1(LaneOctaves x) {
  const F32 one = F32::splat(1.0f), to_integer = F32::splat(kToInteger);
  const F32 shifted = x.coarse + to_integer;
  const F32 f = (x.coarse - (shifted - to_integer)) + x.fine;
  const I32 n = as_int(shifted) - I32::splat((int32_t)bits_of(kToInteger) - 127);
  const F32 power = as_float(shift_left<23>(n));
  return power * (f * exp2_less_1_over(f)) + (power - one);
}

// 2^(first + k step) for whole numbers k in the lanes, of 4 bits but for a power of two, to two
// units of the last place: sums of the coarse parts are exact. Exponents run from -252 to 254;
// results below 2^-126 have the bits of a denormal.
COSMIC_INLINE F32 exp2_of_progression(Octaves first, Octaves step, F32 k) {
  const F32 coarse = k * F32::splat(step.coarse) + F32::splat(first.coarse);
  const F32 fine = k * F32::splat(step.fine) + F32::splat(first.fine);
  const F32 shifted = coarse + F32::splat(kToInteger);
  const F32 f = (coarse - (shifted - F32::splat(kToInteger))) + fine;
  const F32 mantissa = f * exp2_less_1_over(f) + F32::splat(1.0f);
  // a product of two powers, since one alone may be no float
  const I32 n = as_int(shifted) - I32::splat((int32_t)bits_of(kToInteger) - 254); // and 254 more
  const I32 half = shift_right<1>(n);
  return mantissa * as_float(shift_left<23>(half)) * as_float(shift_left<23>(n - half));
}

// ln of positive normal numbers, within two units of the last place, also near 1.
COSMIC_INLINE F32 natural_log(F32 x) {
  const auto times = [](float factor, F32 y) { return F32::splat(factor) * y; };
  const I32 bits = as_int(x);
  const I32 above = bits - I32::splat(0x3f3504f3); // above the root of 1/2
  const F32 n = to_float(shift_right_signed<23>(above));
  const I32 mantissa = bits - (above & I32::splat((int32_t)0xff800000u));
  const F32 f = as_float(mantissa) - F32::splat(1.0f), f2 = f * f, f4 = f2 * f2;
  // ln(1 + f) = f - f^2 / 2 + f^3 p(f)
  const F32 low = line(0.333333164f, -0.250008106f, f) + line(0.200022861f, -0.166245535f, f) * f2;
  const F32 high =
      line(0.141811907f, -0.131287545f, f) + line(0.128816515f, -0.0785961896f, f) * f2;
  const F32 rest = (f2 * f) * (low + high * f4);
  constexpr float kLn2 = 0.693359375f, kLn2Rest = -2.12194440e-4f; // n times the first is exact
  return ((rest + times(kLn2Rest, n)) - times(0.5f, f2) + f) + times(kLn2, n);
}

} // namespace cosmic::COSMIC_TARGET
