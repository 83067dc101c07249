// Exponentials and logarithms from IEEE operations alone, in an order that is written down: the
// same bits on every ISA and with every C library. A block waits for them: polynomials are summed
// in pairs, not one term after the other.
#pragma once

#include "codecs/context.h"

namespace cosmic::COSMIC_TARGET {

// a + b x, for floats and for lanes.
COSMIC_INLINE float line(float a, float b, float x) { return b * x + a; }
COSMIC_INLINE F32 line(float a, float b, F32 x) { return F32::splat(b) * x + F32::splat(a); }

// (2^f - 1) / f on [-1/2, 1/2], to a relative 7e-9.
template <class Real> COSMIC_INLINE Real exp2_less_1_over(Real f) {
  const Real f2 = f * f;
  const Real upper = line(0.00133908669f, 0.000154697351f, f) * f2;
  return (upper + line(0.0555035696f, 0.00961803086f, f)) * f2 +
         line(0.693147182f, 0.240226507f, f);
}

// A number of octaves as two floats, a multiple of 2^-12 and the rest; below 2^10.
struct Octaves {
  float coarse, fine;

  COSMIC_METHOD Octaves operator-() const { return {-coarse, -fine}; }
  // x times the sum of two factors, the first of 12 bits: exact, but for the last place of what has
  // more than 12 bits itself.
  COSMIC_METHOD static Octaves of(float x, float factor, float rest) {
    constexpr float kGrid = 0x1.8p11f; // what is added to it becomes a multiple of 2^-12
    const float product = x * factor, coarse = (product + kGrid) - kGrid;
    return {coarse, (product - coarse) + x * rest};
  }
};

constexpr float kToInteger = 0x1.8p23f; // what is added to it is rounded

// 2^x - 1 for 0 <= x < 127, to a few units of the last place however small x is.
COSMIC_INLINE float exp2_less_1(Octaves x) {
  const float shifted = x.coarse + kToInteger;
  const float f = (x.coarse - (shifted - kToInteger)) + x.fine;
  const float power = float_of((bits_of(shifted) - bits_of(kToInteger) + 127) << 23);
  return power * (f * exp2_less_1_over(f)) + (power - 1.0f);
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

// ln of a positive normal number, within two units of the last place, also near 1.
COSMIC_INLINE float natural_log(float x) {
  const uint32_t above = bits_of(x) - 0x3f3504f3u; // above the root of 1/2
  const float n = (float)((int32_t)above >> 23);
  const float f = float_of(bits_of(x) - (above & 0xff800000u)) - 1.0f, f2 = f * f, f4 = f2 * f2;
  // ln(1 + f) = f - f^2 / 2 + f^3 p(f)
  const float low =
      line(0.333333164f, -0.250008106f, f) + line(0.200022861f, -0.166245535f, f) * f2;
  const float high =
      line(0.141811907f, -0.131287545f, f) + line(0.128816515f, -0.0785961896f, f) * f2;
  const float rest = (f2 * f) * (low + high * f4);
  constexpr float kLn2 = 0.693359375f, kLn2Rest = -2.12194440e-4f; // n times the first is exact
  return ((rest + n * kLn2Rest) - 0.5f * f2 + f) + n * kLn2;
}

} // namespace cosmic::COSMIC_TARGET
